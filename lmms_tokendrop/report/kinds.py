"""Which results files there are, and what a report has of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmms_tokendrop.json_files import read_json
from lmms_tokendrop.report.budgets import budget_sections, is_budgets
from lmms_tokendrop.report.comparisons import comparison_section
from lmms_tokendrop.report.demo import demo_section, is_demo
from lmms_tokendrop.report.planned import planned_sections, published_sections
from lmms_tokendrop.report.pocket import baseline_sections, encoder_section
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.report.speed import gpu_section, parts_section, throughput_section
from lmms_tokendrop.results.compared import read_rows
from lmms_tokendrop.results.measured import rendered


@dataclass(frozen=True)
class Kind:
    """A kind of results file.

    Parameters
    ----------
    name
        What writes such a file.
    recognises
        Whether a file's content is of this kind.
    sections
        From the file's path, its name below the folder of the report, without ending, and its content to what a report
        has of it.
    """

    name: str
    recognises: Callable[[Any], bool]
    sections: Callable[[Path, str, Any], list[Section]]


def _has(*names: str) -> Callable[[Any], bool]:
    """Whether an object has these entries."""
    return lambda found: isinstance(found, dict) and found.keys() >= set(names)


def _planned(found: Any) -> bool:
    return isinstance(found, dict) and bool(found) and all(map(_has("unreduced", "stock", "rows"), found.values()))


COMPARED = Kind("lmms-tokendrop compare", _has("label", "budget", "counter", "setting"), lambda path, name, found: [])
"""Its files are read together, a folder of a task at a time."""

KINDS = (
    COMPARED,
    Kind("lmms-tokendrop demo", is_demo, lambda path, name, found: [demo_section(f"Variants compared, {name}", found)]),
    Kind(
        "measure_budgets.py",
        is_budgets,
        lambda path, name, found: budget_sections(name.removeprefix("budgets_"), found),
    ),
    Kind(
        "pocket_experiments.py",
        _has("rows", "tables", "baselines"),
        lambda path, name, found: [encoder_section(f"Methods compared, {name}", found)],
    ),
    Kind(
        "measure_pocket_llava_next.py",
        _has("parameters", "training", "pocket_scenes"),
        lambda path, name, found: baseline_sections(f"Baselines, {name}", found),
    ),
    Kind(
        "lmms-tokendrop bench",
        _has("rows", "costs", "shares", "stock_attention"),
        lambda path, name, found: [parts_section(f"Speed of parts, {name}", found)],
    ),
    Kind(
        "measure_gpu.py",
        _has("dry_run", "machine", "rows"),
        lambda path, name, found: [gpu_section(f"On a GPU, {name}", found)],
    ),
    Kind(
        "lmms-tokendrop bench, of encoders",
        _has("model", "image_size", "text_tokens", "machine"),
        lambda path, name, found: [throughput_section(f"Speed and memory, {name}", found)],
    ),
    Kind("plan_real_models.py", _planned, lambda path, name, found: planned_sections(f"Planned costs, {name}", found)),
    Kind("published.json", _has("costs", "accuracy"), lambda path, name, found: published_sections(path, found)),
)
"""In the order of a report."""


def read_sections(folder: Path) -> list[Section]:
    """Read every results file in a folder and below.

    Parameters
    ----------
    folder
        Of the files, which end in ``.json``. Names that start with a dot are left out.

    Returns
    -------
    list of Section
        By kind, then by name.

    Raises
    ------
    ValueError
        If there are no results, or if a file is broken or of no known kind; names the file.
    """
    paths = [path for path in sorted(folder.rglob("*.json")) if not path.name.startswith(".")]
    kinds = {path: _kind(path) for path in paths}
    runs = dict.fromkeys(path.parent for path, kind in kinds.items() if kind is COMPARED)
    sections = [section for task in runs for section in _compared(task, task.relative_to(folder))]
    for kind in KINDS:
        for path in (path for path in paths if kinds[path] is kind):
            source = path.relative_to(folder)
            read = partial(kind.sections, path, source.with_suffix("").as_posix())
            sections += (replace(section, source=source.as_posix()) for section in rendered(path, read))
    if not sections:
        raise ValueError(f"{folder}: no results; allowed: a folder with JSON files of {', '.join(_names())}")
    return sections


def _kind(path: Path) -> Kind:
    found = read_json(path)
    for kind in KINDS:
        if kind.recognises(found):
            return kind
    raise ValueError(f"{path} is no results file that is known; allowed: those of {', '.join(_names())}")


def _names() -> Iterator[str]:
    return (kind.name for kind in KINDS)


def _compared(task: Path, source: Path) -> Iterator[Section]:
    """A task of a comparison, if it has a result."""
    rows = read_rows(task)
    if all(row.reason for row in rows):
        return
    try:
        yield replace(comparison_section(f"Methods compared, {source}", rows), source=f"{source}/")
    except ValueError as error:
        raise ValueError(f"{task}: {error}") from error
