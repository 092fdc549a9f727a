"""The table of a card with what lmms-eval measured."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_tokendrop.hub.measurements import Score, Scores
from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, number

SCORE_COLUMNS = (
    "task",
    "metric",
    "questions",
    "unreduced",
    "this model",
    "difference",
    "visual tokens",
    "KV cache, kB",
    "seconds a question, unreduced / this model",
)


def score_table(scores: Scores, tasks: Sequence[str]) -> str:
    """Accuracy and cost beside the unreduced model's, with a row for each of `tasks`, measured or not."""
    rows = []
    for task in sorted({*tasks, *(task for task, _ in scores)}):
        measured = {metric: roles for (name, metric), roles in scores.items() if name == task}
        for metric, roles in measured.items() or [("", {})]:
            rows.append((code(task), escaped(metric), *_cells(roles.get("full"), roles.get("reduced"))))
    return markdown_table(SCORE_COLUMNS, rows) if rows else NOT_MEASURED


def _cells(full: Score | None, reduced: Score | None) -> tuple[str, ...]:
    costs = {} if reduced is None else reduced.costs
    tokens = kv_bytes = NOT_MEASURED
    if "visual_tokens" in costs:
        tokens = f"{number(costs['visual_tokens'], '.1f')} of {number(costs['full_visual_tokens'], '.1f')}"
    if "kv_bytes" in costs:
        kv_bytes = number(costs["kv_bytes"] / 1000, ".0f") if costs["kv_bytes"] else "no cache"
    return (
        _questions(full, reduced),
        _value(full),
        _value(reduced),
        _difference(full, reduced),
        tokens,
        kv_bytes,
        _seconds(full, reduced),
    )


def _difference(full: Score | None, reduced: Score | None) -> str:
    """The difference of two scores of the same questions."""
    if full is None or reduced is None or (full.samples, full.limit) != (reduced.samples, reduced.limit):
        return NOT_MEASURED
    return number(reduced.value - full.value, "+.3f")


def _seconds(*scores: Score | None) -> str:
    shown = [
        f"{number(score.costs['seconds'])} ({escaped(score.device or 'device not stated')})"
        if score is not None and "seconds" in score.costs
        else NOT_MEASURED
        for score in scores
    ]
    return NOT_MEASURED if set(shown) == {NOT_MEASURED} else " / ".join(shown)


def _questions(*scores: Score | None) -> str:
    measured = [score for score in scores if score is not None]
    counts = sorted({number(score.samples, "d") + (" (the first)" if score.limit else "") for score in measured})
    return " and ".join(counts) or NOT_MEASURED


def _value(score: Score | None) -> str:
    if score is None:
        return NOT_MEASURED
    return number(score.value) + ("" if score.stderr is None else f" ± {number(score.stderr)}")
