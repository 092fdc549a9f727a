"""The runs that set MustDrop beside its controls at equal budgets, and MustDrop beside itself with a part changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmms_tokendrop.benchmark.comparison import Run

QUESTIONS = 2000
RATIOS = (0.25, 0.11, 0.5, 0.05)
COUNTERS = ("input", "release")
SEEDS = (0, 1, 2)
ABLATED_RATIOS = (0.25, 0.11)

PARTS: dict[str, dict[str, Any]] = {
    "merging in the vision tower alone": {"merge_threshold": -1.0},
    "merging only where the budget needs it": {"merge_threshold": 1.1},
    "with the decode policy": {"decode_interval": 1},
    "all layers compacted": {"compact_first_layers": True},
    "key_ratio 0": {"key_ratio": 0.0},
    "key_ratio 0.04": {"key_ratio": 0.04},
    "key_ratio 0.12": {"key_ratio": 0.12},
    "newlines row": {"newlines": "row"},
    "newlines keep": {"newlines": "keep"},
    "merge_threshold 0.6": {"merge_threshold": 0.6},
    "merge_threshold 0.9": {"merge_threshold": 0.9},
    "layers 0, 2, 4, 6": {"layers": "0+2+4+6"},
    "layers 2, 4, 6, 8": {"layers": "2+4+6+8"},
    "layers 1 alone": {"layers": "1"},
}
"""Options of MustDrop that differ from the defaults, by what a table calls them."""


@dataclass(frozen=True)
class BudgetRow:
    """One run, and its name in the results file.

    Parameters
    ----------
    name
        ``method, counter, share[, what differs]``.
    run
        What is run.
    timed
        Whether its time is measured: one of each method and budget of the input counter.
    """

    name: str
    run: Run
    timed: bool = False


def row_name(method: str, counter: str, ratio: float, what: str = "") -> str:
    """Name of a row in the results file."""
    return ", ".join([method, counter, f"{ratio:.0%}", *([what] if what else [])])


def budget_rows() -> list[BudgetRow]:
    """The full model, and every method at every budget by both counters, random choices with three seeds."""
    rows = [BudgetRow("full", Run("llava_next_full"), timed=True)]
    for counter in COUNTERS:
        for ratio in RATIOS:
            budget = {"keep_ratio": ratio, "counter": counter}
            timed = counter == "input"
            for method in ("mustdrop", "uniform"):
                rows.append(BudgetRow(row_name(method, counter, ratio), _run(method, budget), timed))
            for seed in SEEDS:
                name = row_name("random", counter, ratio, f"seed {seed}")
                rows.append(BudgetRow(name, _run("random", {**budget, "seed": seed}), timed and seed == 0))
    return rows


def ablation_rows() -> list[BudgetRow]:
    """MustDrop with one part changed, at the budgets of `ABLATED_RATIOS` by the input counter."""
    return [
        BudgetRow(
            row_name("mustdrop", "input", ratio, what),
            _run("mustdrop", {"keep_ratio": ratio, "counter": "input", **options}),
        )
        for ratio in ABLATED_RATIOS
        for what, options in PARTS.items()
    ]


def _run(method: str, options: dict[str, Any]) -> Run:
    return Run(f"llava_next_{method}", f"{options['keep_ratio']:.0%}", options)


ROWS = {"pocket_scenes": [*budget_rows(), *ablation_rows()], "easy_vqa": budget_rows()}
"""All rows of a task, in the order in which they are run."""
