"""Tables of the pocket encoders, from what `scripts/pocket_experiments.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, markdown_table, number
from lmms_tokendrop.results.measured import measured_table

FULL = "full"
"""Row of the unreduced model."""
PUMER = "PuMer"
TRAINED_ON = "full, trained on"
"""Row of the unreduced model after as many further steps as the students take."""
SEEDS = range(3)
"""Of the fine-tunes of the last two."""
HEADER = ("", "accuracy, %", "difference to full", "image tokens", "MACs", "speed-up", "trained, steps")
WITHOUT_LOOKING = {
    "chance": "chance (1 / number of choices)",
    "most_frequent_answer_of_type": "most frequent answer of the question's type",
    "blind": "full, blind (a grey picture)",
}


LOSS_HEADER = ("seed", f"{TRAINED_ON}, %", f"{PUMER}, %", "difference")
OTHERS = ("ToMe", "DynamicViT")
"""Rows beside PuMer's by type of question."""


def seeded(label: str, seed: int) -> str:
    """How a row is called whose fine-tune had another seed."""
    return f"{label}, seed {seed}" if seed else label


def encoder_table(architecture: str, table: str) -> Callable[[Path], str]:
    """:func:`encoder_rows` of an architecture, from the folder of the results files."""
    return measured_table(f"pocket_{architecture}.json", lambda measured: encoder_rows(measured, table))


def encoder_rows(measured: Mapping[str, Any], table: str) -> str:
    """One of the tables that a results file lists, in Markdown; rows that were not run say so.

    Parameters
    ----------
    measured
        What the file holds.
    table
        Key of its ``tables``, which has the labels of the rows.
    """
    found = measured.get("rows", {})
    full = found.get(FULL)
    lines = [_line(label, found.get(label), full) for label in measured["tables"][table]]
    if table == "methods":
        lines += [_plain(name, measured.get("baselines", {}).get(key)) for key, name in WITHOUT_LOOKING.items()]
    return markdown_table(HEADER, lines)


def loss_table(architecture: str) -> Callable[[Path], str]:
    """:func:`loss_rows` of an architecture, from the folder of the results files."""
    return measured_table(f"pocket_{architecture}.json", loss_rows)


def loss_rows(measured: Mapping[str, Any]) -> str:
    """What PuMer loses against the unreduced model after the same steps, seed by seed and in the mean, in Markdown.

    Parameters
    ----------
    measured
        What a results file holds.
    """
    pairs = [_of_seed(measured, seed) for seed in SEEDS]
    lines = [
        (
            str(seed),
            *(NOT_MEASURED if row is None else number(100 * row["accuracy"], ".1f") for row in pair),
            _loss(pair),
        )
        for seed, pair in zip(SEEDS, pairs, strict=True)
    ]
    if any(row is None for pair in pairs for row in pair):
        return markdown_table(LOSS_HEADER, [*lines, ("mean", *[NOT_MEASURED] * 3)])
    full, reduced = ([100 * row["accuracy"] for row in rows] for rows in zip(*pairs, strict=True))
    losses = [one - other for one, other in zip(reduced, full, strict=True)]
    error = stdev(losses) / len(losses) ** 0.5
    total = f"{number(mean(losses), '+.2f')} ± {number(error, '.2f')}"
    return markdown_table(
        LOSS_HEADER, [*lines, ("mean", number(mean(full), ".1f"), number(mean(reduced), ".1f"), total)]
    )


def types_table(architecture: str) -> Callable[[Path], str]:
    """:func:`type_rows` of an architecture, from the folder of the results files."""
    return measured_table(f"pocket_{architecture}.json", type_rows)


def type_rows(measured: Mapping[str, Any]) -> str:
    """Accuracy of fine-tunes by type of question, in Markdown; PuMer's largest loss first.

    PuMer and the unreduced model are means over the seeds that both have, the others one seed. The error of the
    difference is that of questions drawn apart for each, so the paired one is smaller.

    Parameters
    ----------
    measured
        What a results file holds.
    """
    rows = {label: row for label, row in measured.get("rows", {}).items() if "by_type" in row}
    seeds = [seed for seed in SEEDS if all(seeded(label, seed) in rows for label in (TRAINED_ON, PUMER))]
    if not seeds:
        return NOT_MEASURED
    names = {label: [seeded(label, seed) for seed in seeds] for label in (TRAINED_ON, PUMER)}
    others = [label for label in OTHERS if label in rows]
    names |= {label: [label] for label in others}
    found = {label: [rows[name]["by_type"] for name in rows_of] for label, rows_of in names.items()}
    questions = {kind: counts["questions"] for kind, counts in found[PUMER][0].items()}
    shares = {
        label: {kind: mean(row[kind]["right"] / questions[kind] for row in rows_of) for kind in questions}
        for label, rows_of in found.items()
    }
    full, reduced = shares[TRAINED_ON], shares[PUMER]
    lines = []
    for kind in sorted(questions, key=lambda kind: reduced[kind] - full[kind]):
        spread = sum(share[kind] * (1 - share[kind]) for share in (full, reduced))
        loss = number(100 * (reduced[kind] - full[kind]), "+.1f")
        cells = (number(100 * share[kind], ".1f") for share in shares.values())
        error = number(100 * (spread / questions[kind]) ** 0.5, ".1f")
        lines.append((kind, number(questions[kind], "d"), *cells, f"{loss} ± {error}"))
    plural = "seed" if len(seeds) == 1 else "seeds"
    heads = [f"{label}, {len(seeds)} {plural}" for label in (TRAINED_ON, PUMER)]
    header = ("type of question", "questions", *heads, *others, "PuMer's difference")
    return markdown_table(header, lines)


def _of_seed(measured: Mapping[str, Any], seed: int) -> tuple[dict[str, Any] | None, ...]:
    return tuple(measured.get("rows", {}).get(seeded(label, seed)) for label in (TRAINED_ON, PUMER))


def _loss(pair: Sequence[dict[str, Any] | None]) -> str:
    full, reduced = pair
    if full is None or reduced is None:
        return NOT_MEASURED
    return number(100 * (reduced["accuracy"] - full["accuracy"]), "+.2f")


def _line(label: str, row: dict[str, Any] | None, full: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None or full is None:
        return (label, *[NOT_MEASURED] * (len(HEADER) - 1))
    return (
        label,
        f"{number(100 * row['accuracy'], '.1f')} ± {number(100 * row['accuracy_stderr'], '.1f')}",
        ""
        if label == FULL
        else f"{number(100 * row['difference'], '+.2f')} ± {number(100 * row['difference_stderr'], '.2f')}",
        f"{number(row['visual_tokens'], '.1f')} of {number(row['full_visual_tokens'], '.0f')}",
        number(row["macs"] / full["macs"], ".0%"),
        number(row["speed_up"]["median"], ".2f") if "speed_up" in row else NOT_MEASURED,
        number(row["trained_steps"], "d") if row["trained_steps"] else "none",
    )


def _plain(name: str, row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (name, *[NOT_MEASURED] * (len(HEADER) - 1))
    error = f" ± {number(100 * row['standard_error'], '.1f')}" if "standard_error" in row else ""
    return (name, f"{number(100 * row['accuracy'], '.1f')}{error}", "", "", "", "", "")
