"""Tables of MustDrop and its controls at equal budgets, from what `scripts/measure_budgets.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, markdown_table, number
from lmms_tokendrop.results.budget_names import ABLATED_RATIOS, COUNTERS, PARTS, RATIOS, SEEDS, row_name
from lmms_tokendrop.results.measured import measured_table
from lmms_tokendrop.results.statistics import mean_and_stderr

METHODS = ("mustdrop", "random", "uniform")
NOT_REACHABLE = "not reachable"


@dataclass(frozen=True)
class Result:
    """A method at a budget; random choices are averaged over their seeds.

    Parameters
    ----------
    scores
        Score of every question, in the task's order; its mean over the seeds that were run.
    visual_tokens, visual_tokens_release
        Average over layers and questions, by the two counters.
    kv_bytes
        Bytes of a question's cache.
    seconds
        Seconds per question, None if not measured.
    seeds
        How many runs it is the mean of.
    """

    scores: Sequence[float]
    visual_tokens: float
    visual_tokens_release: float
    kv_bytes: float
    seconds: float | None
    seeds: int = 1

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, Any]]) -> Result:
        """Put the runs of one setting together."""
        scores = [fmean(map(int, question)) for question in zip(*(run["scores"] for run in runs), strict=True)]
        names = ("visual_tokens", "visual_tokens_release", "kv_bytes")
        means = {name: fmean(run[name] for run in runs) for name in names}
        return cls(scores, **means, seconds=runs[0].get("seconds"), seeds=len(runs))

    def first(self, questions: int) -> Result:
        """The same over the first questions; costs stay those of all."""
        return replace(self, scores=self.scores[:questions])

    @property
    def accuracy(self) -> str:
        """Mean and standard error over questions, in percent."""
        return _percent(self.scores)

    def minus(self, other: Result) -> str:
        """Paired difference in points and its standard error."""
        return _percent([a - b for a, b in zip(self.scores, other.scores, strict=True)], "+.1f")


def result(found: Mapping[str, Any], method: str, counter: str, ratio: float, what: str = "") -> Result | str:
    """Look up a setting in a results file; a text says why there are no numbers.

    The controls have one number of tokens by both counters, and are run once.
    """
    counter = counter if method == "mustdrop" else "input"
    names = [row_name(method, counter, ratio, what)]
    if method == "random":
        names = [row_name(method, counter, ratio, f"seed {seed}") for seed in SEEDS]
    runs = [found[name] for name in names if name in found]
    if not runs:
        return NOT_MEASURED
    return NOT_REACHABLE if "not_reachable" in runs[0] else Result.of(runs)


BUDGET_HEADER = (
    *("counter", "budget", "method", "accuracy, %", "to full", "MustDrop minus it", "tokens (input)"),
    *("tokens (release)", "KV, kB", "ms a question"),
)


def budget_table(task: str) -> Callable[[Path], str]:
    """:func:`budget_rows` of a task, from the folder of the results files."""
    return measured_table(f"budgets_{task}.json", budget_rows)


def budget_rows(found: Mapping[str, Any]) -> str:
    """Every method at every budget by both counters, in Markdown.

    Parameters
    ----------
    found
        What a results file holds.
    """
    full = Result.of([found["full"]])
    tokens = found["full"]["full_visual_tokens"]
    rows = [("", "all", "full", full.accuracy, "", "", *_cost(full))]
    seeds = 0
    for counter in COUNTERS:
        for ratio in RATIOS:
            results = {method: result(found, method, counter, ratio) for method in METHODS}
            for method, one in results.items():
                first = (counter, f"{ratio:.0%}", method)
                if isinstance(one, str):
                    rows.append((*first, one, *[""] * (len(BUDGET_HEADER) - 4)))
                    continue
                seeds = max(seeds, one.seeds)
                ahead = results["mustdrop"]
                gap = "" if method == "mustdrop" or isinstance(ahead, str) else ahead.minus(one)
                rows.append((*first, one.accuracy, one.minus(full), gap, *_cost(one)))
    caption = f"{len(full.scores)} questions, {number(tokens, '.0f')} visual tokens; random: mean of {seeds} seeds."
    return f"{caption}\n\n{markdown_table(BUDGET_HEADER, rows)}"


def ablation_table(task: str, parts: Iterable[str] = PARTS) -> Callable[[Path], str]:
    """:func:`ablation_rows` of a task, from the folder of the results files."""
    return measured_table(f"budgets_{task}.json", lambda found: ablation_rows(found, parts))


def ablation_rows(found: Mapping[str, Any], parts: Iterable[str]) -> str:
    """MustDrop with one of the `parts` changed, by the input counter; otherwise as :func:`budget_rows`."""
    header = ("MustDrop", *(f"{ratio:.0%}, {what}" for ratio in ABLATED_RATIOS for what in ("accuracy, %", "change")))
    results = ablation(found, parts)
    rows = []
    for what in ("", *parts):
        cells = []
        for ratio in ABLATED_RATIOS:
            one, defaults = results[what, ratio], results["", ratio]
            if isinstance(one, str):
                cells += [one, ""]
                continue
            cells += [one.accuracy, one.minus(defaults) if what and isinstance(defaults, Result) else ""]
        rows.append((what or "defaults", *cells))
    there = [len(one.scores) for one in results.values() if isinstance(one, Result)]
    questions = min(there, default=len(found["full"]["scores"]))
    return f"{questions} questions, counter `input`.\n\n{markdown_table(header, rows)}"


def ablation(found: Mapping[str, Any], parts: Iterable[str]) -> dict[tuple[str, float], Result | str]:
    """Results by part and ratio, "" for the defaults, all over the questions that the shortest of them has."""
    names = [(what, ratio) for what in ("", *parts) for ratio in ABLATED_RATIOS]
    results = {name: result(found, "mustdrop", "input", name[1], name[0]) for name in names}
    there = [one for one in (Result.of([found["full"]]), *results.values()) if isinstance(one, Result)]
    questions = min(len(one.scores) for one in there)
    return {name: one if isinstance(one, str) else one.first(questions) for name, one in results.items()}


def _cost(one: Result) -> tuple[str, ...]:
    return (
        number(one.visual_tokens, ".1f"),
        number(one.visual_tokens_release, ".1f"),
        number(one.kv_bytes / 1000, ".0f"),
        NOT_MEASURED if one.seconds is None else number(1000 * one.seconds, ".0f"),
    )


def _percent(values: Sequence[float], form: str = ".1f") -> str:
    mean, stderr = mean_and_stderr(list(values))
    return f"{number(100 * mean, form)} ± {number(100 * stderr, '.1f')}"
