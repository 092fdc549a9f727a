"""Markdown tables, made of registries and of results files only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path

from lmms_tokendrop.benchmark.meter_report import meter_macs_table
from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.markdown import markdown_table
from lmms_tokendrop.modeling.core.options import Reductions, span
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.results.tables import RESULTS_TABLES
from lmms_tokendrop.training.command import read_options
from lmms_tokendrop.training.options import TrainingOptions, allowed_values, kind
from lmms_tokendrop.training.recipes import RECIPES

BLOCK = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


class UnknownTable(ValueError):
    """A document asks for a table that there is not."""


def render_blocks(text: str, results: Path) -> str:
    """Fill every block `<!-- table: name --> ... <!-- end -->` of a document.

    Parameters
    ----------
    text
        The document.
    results
        Folder of the results files.

    Returns
    -------
    str
        The document with fresh tables.

    Raises
    ------
    UnknownTable
        If a block has a name that no table has.
    """

    def fill(match: re.Match) -> str:
        if match["name"] not in TABLES:
            raise UnknownTable(f"table: {match['name']!r}; allowed: {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match['name']](results)}\n{match[3]}"

    return BLOCK.sub(fill, text)


def fill_documents(results: Path, documents: Sequence[Path]) -> None:
    """Write the tables of documents anew, as :func:`render_blocks` does; none is written if one can't be rendered.

    Parameters
    ----------
    results
        Folder of the results files.
    documents
        Markdown files.

    Raises
    ------
    ValueError
        If a block has a name that no table has; names the document.
    """
    texts = {}
    for path in documents:
        try:
            texts[path] = render_blocks(path.read_text(encoding="utf-8"), results)
        except UnknownTable as error:
            raise ValueError(f"{path}: {error}") from None
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def variants_table(results: Path) -> str:
    """Every registered variant."""
    rows = [
        (
            f"`{entry.model_id}`",
            entry.method,
            f"`{entry.pretrained}`" if entry.pretrained else "none: name one",
            entry.description,
        )
        for entry in variants()
    ]
    return markdown_table(("`--model`", "method", "default `pretrained`", "what it is"), rows)


def options_table(reductions: Reductions) -> Callable[[Path], str]:
    """A table of every option of an architecture's methods, and the methods that read it as it is there."""

    def table(results: Path) -> str:
        readers: dict[tuple[str, ...], list[str]] = {("`method`", "`none`", "", "The method."): []}
        for method in reductions.reducers:
            for name, entry in reductions.offered(reductions.options_of(method)).items():
                readers.setdefault((f"`{name}`", *_described(entry)), []).append(method)
        rows = sorted(readers, key=lambda row: [first[0] for first in readers].index(row[0]))
        return markdown_table(
            ("option", "default", "allowed", "meaning", "methods"),
            [(*row, ", ".join(readers[row]) or "all") for row in rows],
        )

    return table


def _described(entry: Field) -> tuple[str, str, str]:
    """Default, allowed values and meaning of an option."""
    about = entry.metadata
    values = "" if about["low"] is None else span(about["low"], about["high"])
    if about["allowed"] is not None and entry.name != "preset":
        values = ", ".join(f"`{value}`" for value in about["allowed"])
    return "" if entry.default is None else f"`{entry.default}`", values, about["help"]


def presets_table(reductions: Reductions) -> Callable[[Path], str]:
    """A table of every preset of an architecture's methods and what it stands for."""

    def table(results: Path) -> str:
        rows = [
            (method, f"`{name}`", ", ".join(f"`{key}={value}`" for key, value in options.items()))
            for method, reducer in reductions.reducers.items()
            for name, options in reducer.Options.presets.items()
        ]
        return markdown_table(("method", "preset", "stands for"), rows)

    return table


def training_options_table(results: Path) -> str:
    """Every option of `lmms-tokendrop train`."""
    rows = []
    for entry in fields(TrainingOptions):
        about, allowed = entry.metadata, allowed_values(entry)
        values = span(about["low"], about["high"], about["below"]) if kind(entry) in (int, float) else ""
        if allowed is not None:
            values = ", ".join(f"`{value}`" for value in allowed)
        default = "" if entry.default is None or entry.default is False else f"`{entry.default}`"
        rows.append((f"`--{entry.name.replace('_', '-')}`", default, values, entry.metadata["help"]))
    return markdown_table(("option", "default", "allowed", "meaning"), rows)


def recipes_table(results: Path) -> str:
    """Every published training setting."""
    rows = []
    for name in RECIPES:
        options = read_options(name, {"pretrained": "checkpoint", "teacher": "teacher", "data": "data"})
        multipliers = ", ".join(f"{part} {factor:g}" for part, factor in options.lr_multipliers.items())
        rows.append(
            (
                f"`{name}`",
                options.method,
                f"{options.learning_rate:g}",
                multipliers,
                f"{options.batch_size} x {options.accumulate}",
                str(options.epochs),
                str(options.image_size),
            )
        )
    header = ("recipe", "method", "learning rate", "multipliers", "batch", "epochs", "image side, px")
    return markdown_table(header, rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "variants": variants_table,
    "options": options_table(reductions("llava_next")),
    "presets": presets_table(reductions("llava_next")),
    "fusion-options": options_table(reductions("vilt")),
    "fusion-presets": presets_table(reductions("vilt")),
    "meter-options": options_table(reductions("meter")),
    "meter-presets": presets_table(reductions("meter")),
    "meter-macs": meter_macs_table,
    "training-options": training_options_table,
    "recipes": recipes_table,
    **RESULTS_TABLES,
}
