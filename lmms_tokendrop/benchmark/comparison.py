"""Run variants on a task through lmms-eval and set accuracy beside cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lmms_tokendrop.evaluation.running import run_task
from lmms_tokendrop.evaluation.tasks_path import tasks_path
from lmms_tokendrop.results.statistics import mean_and_stderr

if TYPE_CHECKING:
    from lmms_eval.tasks import TaskManager


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


Progress = Callable[[str, int, int], None]
"""Takes what is run, and how many questions are answered so far and in all runs."""


def measure(
    runs: Sequence[Run],
    *,
    task: str,
    metric: str = "accuracy",
    pretrained: str = "pocket",
    limit: int | None = None,
    batch_size: int | str = "auto",
    device: str | None = None,
    progress: Progress | None = None,
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
    progress
        Called after every answer, in place of lmms-eval's progress bars.

    Returns
    -------
    list of Measurement
        In the order of ``runs``.

    Raises
    ------
    ValueError
        If no bundled task of that name writes answers with that score, or if the limit is no number of questions.
    """
    tasks = written_tasks(metric)
    if task not in tasks:
        raise ValueError(f"task={task!r}; allowed: {', '.join(tasks)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}; allowed: 1 or more, or all")
    measurements: list[Measurement] = []
    baseline: dict[int, float] = {}
    for number, run in enumerate(runs):

        def on_answer(done: int, questions: int, number: int = number, run: Run = run) -> None:
            progress(f"{run.model_id} {run.budget}", number * questions + done, len(runs) * questions)

        results = run_task(
            run.model_id,
            task,
            {"pretrained": pretrained, **run.model_args},
            limit=limit,
            batch_size=batch_size,
            device=device,
            on_answer=None if progress is None else on_answer,
        )
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


def to_json(measurements: Sequence[Measurement]) -> str:
    """Write measurements as a JSON list; a standard error that cannot be told is null."""
    rows = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(row).items()}
        for row in measurements
    ]
    return json.dumps(rows, indent=2, allow_nan=False) + "\n"


def written_tasks(metric: str) -> list[str]:
    """Return the bundled tasks whose answers are written and have a score of that name."""
    from lmms_eval.utils import load_yaml_config

    found = []
    for name, entry in _bundled().task_index.items():
        config = load_yaml_config(entry["yaml_path"], mode="simple") if entry["yaml_path"] != -1 else {}
        scores = [score["metric"] for score in config.get("metric_list", ())]
        if config.get("output_type") == "generate_until" and metric in scores:
            found.append(name)
    return sorted(found)


def _bundled() -> TaskManager:
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=str(tasks_path()), include_defaults=False)
