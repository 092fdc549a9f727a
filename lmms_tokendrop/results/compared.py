"""What ``lmms-tokendrop compare`` ran, as rows of a table or points of a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lmms_tokendrop import catalogue
from lmms_tokendrop.json_files import read_json_object

FULL = "full"
"""Label of the unreduced model."""

VALIDATION = "_validation"
"""With it a task's name is that of the one on which options and candidates are chosen."""

COSTS = ("visual_tokens", "visual_tokens_release", "full_visual_tokens", "decoder_macs", "kv_bytes")
LAYERS = "visual_tokens_per_layer"
"""Entry of a result with the visual tokens that each layer receives."""

SAME = ("setting", "metric", "documents")
"""What runs must have in common to be compared."""


@dataclass(frozen=True)
class Row:
    """A method at a budget on a task; random choices are averaged over their seeds.

    Parameters
    ----------
    label, budget, counter
        What was run; without a budget, in a setting of the method's own.
    reason
        Why there is no result; empty if there is one.
    metric, value
        The score, and its mean over seeds.
    scores
        That of each document, mean over seeds; None if the value is no mean of such.
    documents
        Their number.
    seeds
        How many runs it is the mean of.
    cost
        Means over documents of `COSTS`.
    seconds
        Per document, median over rounds; None if not measured.
    layers
        Visual tokens that each layer receives, means over documents; None where the runs have no such counts.
    """

    label: str
    budget: str | None
    counter: str | None
    reason: str = ""
    metric: str = ""
    value: float = 0.0
    scores: Sequence[float] | None = None
    documents: int = 0
    seeds: int = 1
    cost: Mapping[str, float] | None = None
    seconds: float | None = None
    layers: Sequence[float] | None = None

    @property
    def setting(self) -> str:
        """Its budget and what that counts, or that it has a setting of its own."""
        if self.label == FULL:
            return "all"
        return "own setting" if self.budget is None else f"{self.budget}, {self.counter}"

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, Any]]) -> Row:
        """Put the runs of one setting together."""
        what = {name: runs[0][name] for name in ("label", "budget", "counter")}
        for run in runs:
            if "result" not in run:
                return cls(**what, reason=without_result(run))
        results = [run["result"] for run in runs]
        scores = None
        if all(result["scores"] is not None for result in results):
            scores = [fmean(document) for document in zip(*(result["scores"] for result in results), strict=True)]
        seconds = [median(run["seconds"]) for run in runs if "seconds" in run]
        layers = [result[LAYERS] for result in results if result.get(LAYERS)]
        return cls(
            **what,
            metric=results[0]["metric"],
            value=fmean(result["value"] for result in results),
            scores=scores,
            documents=results[0]["documents"],
            seeds=len(runs),
            cost={name: fmean(result["cost"][name] for result in results) for name in COSTS},
            seconds=fmean(seconds) if len(seconds) == len(runs) else None,
            layers=list(map(fmean, zip(*layers, strict=True))) if len(layers) == len(runs) else None,
        )

    def minus(self, other: Row) -> list[float] | None:
        """The difference of each document; None where one of the two has no scores of documents."""
        if self.scores is None or other.scores is None:
            return None
        return [a - b for a, b in zip(self.scores, other.scores, strict=True)]


def without_result(run: Mapping[str, Any]) -> str:
    """Why a run has no result."""
    return f"not reachable: {run['not_reachable']}" if "not_reachable" in run else f"failed: {run.get('failed')}"


def read_rows(folder: Path) -> list[Row]:
    """Read the runs of a task.

    Parameters
    ----------
    folder
        Of the task, in that of a comparison.

    Returns
    -------
    list of Row
        The unreduced model first; then by counter and budget, large ones first, methods as in the catalogue; then those
        with a setting of their own. Empty without a file.

    Raises
    ------
    ValueError
        If a file is of something else, or differs from another in what makes scores comparable; names it.
    """
    runs: dict[tuple, list[dict[str, Any]]] = {}
    common: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        run = read_json_object(path)
        try:
            key = (run["label"], run["budget"], run["counter"])
            for name, value in {**run, **run.get("result", {})}.items():
                if name in SAME and common.setdefault(name, value) != value:
                    raise ValueError(f"{name}={value!r}, and another file of the folder has {common[name]!r}")
            _order(Row.of([run]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no run of this comparison ({type(error).__name__}: {error})") from error
        runs.setdefault(key, []).append(run)
    return sorted(map(Row.of, runs.values()), key=_order)


def read_tasks(folder: Path) -> dict[str, list[Row]]:
    """Read all tasks of a comparison with a result, by name; arguments and errors as of :func:`read_rows`."""
    found = {path.name: read_rows(path) for path in sorted(folder.glob("*/"))}
    return {task: rows for task, rows in found.items() if any(not row.reason for row in rows)}


def _order(row: Row) -> tuple:
    names = [method.name for method in catalogue.methods()]
    name = row.label.split(":")[0]
    place = names.index(name) if name in names else len(names)
    budget = row.budget or ""
    share = budget.endswith("%")
    size = float(budget.removesuffix("%")) if budget else 0.0
    return row.label != FULL, row.budget is None, row.counter or "", not share, -size, place, row.label
