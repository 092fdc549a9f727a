"""Measure MustDrop and its controls at equal budgets on the pocket LLaVA-NeXT: `measure_budgets.py TASK`.

Writes `model_cards/results/budgets_TASK.json`, a row per run with the score of every question, so that differences
are paired. The file is rewritten after each run and rows that are there are not run again. `--time` adds seconds per
question to the rows, alternating between variants; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from lmms_tokendrop.benchmark.budget_rows import QUESTIONS, ROWS, BudgetRow
from lmms_tokendrop.evaluation.running import run_task
from lmms_tokendrop.modeling.core.budget import UnreachableBudget

RESULTS = Path(__file__).resolve().parents[1] / "model_cards" / "results"
TIMED_QUESTIONS, ROUNDS = 96, 3


def run(row: BudgetRow, task: str, questions: int) -> dict[str, Any]:
    """Results of lmms-eval."""
    model_args = {"pretrained": "pocket", **row.run.model_args}
    return run_task(row.run.model_id, task, model_args, limit=questions, batch_size=8)


def measured(row: BudgetRow, task: str, questions: int) -> dict[str, Any]:
    """Run a row; a budget that cannot be met is written down with the method's own words."""
    try:
        results = run(row, task, questions)
    except UnreachableBudget as error:
        return {"not_reachable": str(error)}
    scores = {sample["doc_id"]: int(sample["accuracy"]) for sample in results["samples"][task]}
    cost = results["throughput"]
    return {
        "scores": "".join(str(scores[number]) for number in sorted(scores)),
        "visual_tokens": cost["avg_visual_tokens"],
        "visual_tokens_release": cost["avg_visual_tokens_release"],
        "full_visual_tokens": cost["avg_full_visual_tokens"],
        "kv_bytes": cost["avg_kv_bytes"],
    }


def timed(rows: list[BudgetRow], task: str) -> dict[str, float]:
    """Median over rounds of the seconds per question, each row once in a round."""
    rounds: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(ROUNDS):
        for row in rows:
            results = run(row, task, TIMED_QUESTIONS)
            rounds[row.name].append(results["throughput"]["avg_seconds"])
    return {name: statistics.median(seconds) for name, seconds in rounds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(ROWS))
    parser.add_argument("--time", action="store_true", help="measure seconds per question of rows that are there")
    parser.add_argument("--rows", default="", help="only rows whose names start with this, such as 'mustdrop, input'")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="at most the first so many of the task")
    parser.add_argument("--output", type=Path, help="default: model_cards/results/budgets_TASK.json")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = options.output or RESULTS / f"budgets_{options.task}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    asked = {row.name: min(row.questions, options.questions) for row in ROWS[options.task]}
    if any(len(row.get("scores", "")) not in (0, asked.get(name)) for name, row in found.items()):
        parser.error(f"--questions {options.questions}: {path} has rows over another number of questions")

    def save() -> None:
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")

    rows = [row for row in ROWS[options.task] if row.name.startswith(options.rows)]
    if not rows:
        parser.error(f"--rows {options.rows!r}; allowed: the start of a name such as {ROWS[options.task][1].name!r}")
    if options.time:
        reached = [row for row in rows if row.timed and "scores" in found.get(row.name, {})]
        for name, seconds in timed(reached, options.task).items():
            found[name]["seconds"] = seconds
        save()
        return
    for row in rows:
        if row.name not in found:
            found[row.name] = measured(row, options.task, asked[row.name])
            save()
            print(row.name, found[row.name].get("scores", "").count("1"), flush=True)


if __name__ == "__main__":
    main()
