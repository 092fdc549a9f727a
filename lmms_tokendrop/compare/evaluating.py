"""One run through lmms-eval, and what is kept of its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.evaluation.cost import COUNTS
from lmms_tokendrop.evaluation.running import LAYERS, REDUCTION, run_task


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Parameters
    ----------
    metric
        The score.
    value
        Its value over all documents, as lmms-eval reports it.
    documents
        Number of documents, the task's first ones.
    answers
        The model's answer to each.
    scores
        The score of each; None if the value is no mean of such.
    reduction
        The options of the reduction, defaults included.
    cost
        Means over documents of `COUNTS`, which are fields of `lmms_tokendrop.evaluation.cost.SampleCost`.
    seconds
        Per document.
    visual_tokens_per_layer
        Visual tokens that each layer receives, means over documents.
    """

    metric: str
    value: float
    documents: int
    answers: Sequence[Any]
    scores: Sequence[float] | None
    reduction: Mapping[str, Any]
    cost: Mapping[str, float]
    seconds: float
    visual_tokens_per_layer: Sequence[float] = ()


def evaluated(setting: Setting, run: Run, **options: Any) -> Result | None:
    """Do a run.

    Parameters
    ----------
    setting, run
        What is run.
    **options
        Of `run_task`: `limit`, `batch_size`, `device`, `include_path`.

    Returns
    -------
    Result or None
        None in all processes but the first.

    Raises
    ------
    ValueError
        If the task has no such metric, or reports no number for it.
    """
    model_args = {"pretrained": setting.pretrained, **setting.model_args, **run.options}
    results = run_task(run.variant, run.task, model_args, **options)
    return None if results is None else result_of(results, run.task, setting.metric)


def result_of(results: Mapping[str, Any], task: str, metric: str | None) -> Result:
    """Keep what a comparison needs of the results of `run_task`.

    Parameters
    ----------
    results
        Those of one task, with samples.
    task
        Its name.
    metric
        The score; None: the first of the task.

    Raises
    ------
    ValueError
        As of :func:`evaluated`.
    """
    values = {name.split(",")[0]: value for name, value in reversed(results["results"][task].items()) if "," in name}
    named = [entry["metric"] for entry in results["configs"][task]["metric_list"]]
    metric = metric or named[0]
    value = values.get(metric)
    if metric not in named or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"metric={metric!r} of {task} is {value!r}, no number; its metrics: {', '.join(named)}")
    samples = {sample["doc_id"]: sample for sample in reversed(results["samples"][task])}
    if sorted(samples) != list(range(len(samples))):
        raise ValueError(f"{task}: the results have documents {sorted(samples)[:3]}...; they must be the first ones")
    ordered = [samples[number] for number in range(len(samples))]
    answers = [sample["filtered_resps"] for sample in ordered]
    return Result(
        metric=metric,
        value=float(value),
        documents=len(ordered),
        answers=[answer[0] if len(answer) == 1 else answer for answer in answers],
        scores=scores_of(ordered, metric, float(value)),
        reduction=results[REDUCTION],
        cost={name: results["throughput"][f"avg_{name}"] for name in COUNTS},
        seconds=results["throughput"]["avg_seconds"],
        visual_tokens_per_layer=results[LAYERS],
    )


def scores_of(samples: Sequence[Mapping[str, Any]], metric: str, value: float) -> list[float] | None:
    """The score of each document, where they are numbers whose mean is the reported value; else None."""
    found = [sample.get(metric) for sample in samples]
    found = [score.get("score") if isinstance(score, Mapping) else score for score in found]
    if not all(isinstance(score, int | float) and math.isfinite(score) for score in found):
        return None
    scores = [int(score) if score == int(score) else float(score) for score in found]
    return scores if math.isclose(fmean(scores), value, abs_tol=1e-9) else None
