"""Run variants on a task through lmms-eval and set accuracy beside cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lmms_tokendrop.evaluation.tasks_path import tasks_path


@dataclass(frozen=True)
class Run:
    """A variant with the options that it is run with.

    Parameters
    ----------
    model_id
        Name for ``lmms-eval --model``.
    budget
        How tables name what it is run with.
    model_args
        Model arguments beside the checkpoint, or another checkpoint as ``pretrained``.
    """

    model_id: str
    budget: str = "all"
    model_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What one run gave.

    Parameters
    ----------
    model_id, budget
        What was run.
    samples
        Number of questions.
    cost_samples
        Number of those that the costs are means over.
    accuracy, accuracy_stderr
        Share of right answers and its standard error.
    difference, difference_stderr
        Accuracy minus that of the first run on the same questions, and its paired standard error.
    visual_tokens
        Visual tokens that a decoder layer receives: mean over layers, then over questions.
    full_visual_tokens
        The same of the unreduced model.
    kv_bytes
        Bytes of a question's cache when its answer ends.
    seconds
        Seconds per question.
    """

    model_id: str
    budget: str
    samples: int
    cost_samples: int
    accuracy: float
    accuracy_stderr: float
    difference: float
    difference_stderr: float
    visual_tokens: float
    full_visual_tokens: float
    kv_bytes: float
    seconds: float


CAPTION = """± standard error, paired where runs are compared
tokens: visual tokens that a decoder layer receives, mean over layers, questions
KV kB, seconds: cache size and time per question"""

DEMO_RUNS = (
    Run("llava_next_full"),
    *(
        Run(model_id, f"{ratio:.0%}", {"keep_ratio": ratio})
        for ratio in (0.5, 0.25, 0.11)
        for model_id in ("llava_next_mustdrop", "llava_next_random")
    ),
)
"""The runs of ``lmms-tokendrop demo``; the first is the baseline."""


def compare(
    runs: Iterable[Run],
    *,
    task: str,
    metric: str = "accuracy",
    pretrained: str = "pocket",
    limit: int | None = None,
    batch_size: int | str = "auto",
    device: str | None = None,
) -> list[Measurement]:
    """Run each variant on a bundled task.

    Parameters
    ----------
    runs
        What to run; differences are taken to the first.
    task
        Name of a task in `tasks_path`.
    metric
        Per-sample score that the task reports.
    pretrained
        Checkpoint, or ``"pocket"``.
    limit
        Number of questions; None for all.
    batch_size, device
        As for lmms-eval.

    Returns
    -------
    list of Measurement
        In the order of ``runs``.
    """
    measurements: list[Measurement] = []
    baseline: dict[int, float] = {}
    for run in runs:
        results = evaluate(run, task=task, pretrained=pretrained, limit=limit, batch_size=batch_size, device=device)
        scores = {sample["doc_id"]: float(sample[metric]) for sample in results["samples"][task]}
        baseline = baseline or scores
        measurements.append(measurement(run, scores, baseline, results["throughput"]))
    return measurements


def measurement(
    run: Run, scores: Mapping[int, float], baseline: Mapping[int, float], cost: Mapping[str, float]
) -> Measurement:
    """Sum up one run.

    Parameters
    ----------
    run
        What was run.
    scores, baseline
        Score of each question, of this run and of the one that it is compared with.
    cost
        lmms-eval's ``throughput``.

    Returns
    -------
    Measurement
    """
    accuracy, accuracy_stderr = mean_and_stderr(list(scores.values()))
    difference, difference_stderr = mean_and_stderr([score - baseline[doc] for doc, score in scores.items()])
    return Measurement(
        model_id=run.model_id,
        budget=run.budget,
        samples=len(scores),
        cost_samples=int(cost["avg_n"]),
        accuracy=accuracy,
        accuracy_stderr=accuracy_stderr,
        difference=difference,
        difference_stderr=difference_stderr,
        visual_tokens=cost["avg_visual_tokens"],
        full_visual_tokens=cost["avg_full_visual_tokens"],
        kv_bytes=cost["avg_kv_bytes"],
        seconds=cost["avg_seconds"],
    )


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, which is not a number for a single value."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def comparison_table(measurements: Sequence[Measurement], title: str) -> Table:
    """Lay measurements out as one table."""
    table = Table(title=title, caption=CAPTION, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", no_wrap=True)
    for name in ("budget", "accuracy %", "vs first", "tokens", "KV kB", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in measurements:
        table.add_row(
            row.model_id,
            row.budget,
            f"{100 * row.accuracy:.1f} ± {100 * row.accuracy_stderr:.1f}",
            f"{100 * row.difference:+.1f} ± {100 * row.difference_stderr:.1f}",
            f"{row.visual_tokens:.1f}",
            f"{row.kv_bytes / 1000:.0f}",
            f"{row.seconds:.3f}",
        )
    return table


def evaluate(
    run: Run,
    *,
    task: str,
    pretrained: str = "pocket",
    limit: int | None = None,
    batch_size: int | str = "auto",
    device: str | None = None,
) -> dict[str, Any]:
    """Run one variant on a bundled task.

    Parameters
    ----------
    run
        What to run.
    task, pretrained, limit, batch_size, device
        As for :func:`compare`.

    Returns
    -------
    dict
        lmms-eval's results, samples included.
    """
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    model_args = {"pretrained": pretrained, **run.model_args}
    return simple_evaluate(
        model=run.model_id,
        model_args=",".join(f"{name}={value}" for name, value in model_args.items()),
        tasks=[task],
        task_manager=TaskManager("ERROR", include_path=str(tasks_path()), include_defaults=False),
        batch_size=batch_size,
        device=device,
        limit=limit,
        bootstrap_iters=0,
    )
