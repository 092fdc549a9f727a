"""The runs that set MustDrop beside its controls at equal budgets, and MustDrop beside itself with a part changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmms_tokendrop.benchmark.comparison import Run
from lmms_tokendrop.results.budget_names import ABLATED_RATIOS, PARTS, RATIOS, SEEDS, TEXT_RATIOS, row_name

QUESTIONS = 2000
ABLATED_QUESTIONS = 1000


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
        Whether its time is measured: one of each method, budget and counter.
    questions
        The first so many of the task.
    """

    name: str
    run: Run
    timed: bool = False
    questions: int = QUESTIONS


def budget_rows() -> list[BudgetRow]:
    """The full model, MustDrop at every budget by both counters, and the controls, random choices with three seeds.

    The controls drop before the first layer, where both counters count the same.
    """
    rows = [BudgetRow("full", Run("llava_next_full"), timed=True)]
    for ratio in RATIOS:
        budget = {"keep_ratio": ratio, "counter": "input"}
        for method in ("mustdrop", "uniform"):
            rows.append(BudgetRow(row_name(method, "input", ratio), _run(method, budget), timed=True))
        for seed in SEEDS:
            name = row_name("random", "input", ratio, f"seed {seed}")
            rows.append(BudgetRow(name, _run("random", {**budget, "seed": seed}), timed=seed == 0))
    for ratio in RATIOS:
        budget = {"keep_ratio": ratio, "counter": "release"}
        rows.append(BudgetRow(row_name("mustdrop", "release", ratio), _run("mustdrop", budget), timed=True))
    return rows


def ablation_rows(parts: Mapping[str, dict[str, Any]], questions: int) -> list[BudgetRow]:
    """MustDrop with one of the `parts` changed, at the budgets of `ABLATED_RATIOS` by the input counter."""
    return [
        BudgetRow(
            row_name("mustdrop", "input", ratio, what),
            _run("mustdrop", {"keep_ratio": ratio, "counter": "input", **options}),
            questions=questions,
        )
        for ratio in ABLATED_RATIOS
        for what, options in parts.items()
    ]


def validation_rows() -> list[BudgetRow]:
    """The full model, and MustDrop with its defaults and each of `TEXT_RATIOS`."""
    names = {"full", *(row_name("mustdrop", "input", ratio) for ratio in ABLATED_RATIOS)}
    return [*(row for row in budget_rows() if row.name in names), *ablation_rows(TEXT_RATIOS, QUESTIONS)]


def _run(method: str, options: dict[str, Any]) -> Run:
    return Run(f"llava_next_{method}", f"{options['keep_ratio']:.0%}", options)


ROWS = {
    "pocket_scenes": [*budget_rows(), *ablation_rows(PARTS, ABLATED_QUESTIONS)],
    "easy_vqa": budget_rows(),
    "pocket_scenes_validation": validation_rows(),
    "easy_vqa_validation": validation_rows(),
}
"""All rows of a task, in the order in which they are run."""
