"""Find the threshold whose average number of visual tokens meets a budget on given samples.

The MustDrop paper (https://arxiv.org/abs/2411.10803) tunes its thresholds for each benchmark so that the average over
the benchmark meets the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lmms_eval.tasks import get_task_dict

from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop
from lmms_tokendrop.evaluation.prompts import Question
from lmms_tokendrop.evaluation.task_managers import task_manager
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.available import reductions

SMALLEST_THRESHOLD = 1e-6
LARGEST_THRESHOLD = 1.0
MAX_STEPS = 40


@dataclass(frozen=True)
class Calibration:
    """Thresholds and what they give.

    Parameters
    ----------
    token_reduction
        Options for ``from_pretrained``.
    average
        Mean visual tokens over layers and samples.
    samples
        Number of samples.
    """

    token_reduction: dict[str, Any]
    average: float
    samples: int


def bisect_threshold(average: Callable[[float], float], budget: float, tolerance: float) -> tuple[float, float]:
    """Find the threshold at which a falling function meets a budget, by bisection of its logarithm.

    Parameters
    ----------
    average
        Mean visual tokens at a threshold; falls as the threshold rises.
    budget
        Mean to meet.
    tolerance
        Difference that is good enough.

    Returns
    -------
    tuple of float and float
        The threshold and its mean.

    Raises
    ------
    ValueError
        If no threshold between `SMALLEST_THRESHOLD` and `LARGEST_THRESHOLD` meets the budget, or if budget or
        tolerance is no positive number.
    """
    for name, value in (("budget", budget), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value:g}; allowed: a finite number above 0")
    low, high = SMALLEST_THRESHOLD, LARGEST_THRESHOLD
    most, least = average(low), average(high)
    if not least - tolerance <= budget <= most + tolerance:
        raise ValueError(
            f"budget {budget:g} can't be met: the average is {most:.2f} with global_threshold={low:g} and {least:.2f} "
            f"with {high:g}; more tokens leave with no individual_threshold or a larger one, merging and the layers "
            "before the first drop set the rest"
        )
    tried = {low: most, high: least}
    for _ in range(MAX_STEPS):
        best = min(tried, key=lambda threshold: abs(tried[threshold] - budget))
        if abs(tried[best] - budget) <= tolerance:
            return best, tried[best]
        middle = math.sqrt(low * high)
        tried[middle] = average(middle)
        low, high = (middle, high) if tried[middle] > budget else (low, middle)
    raise ValueError(
        f"budget {budget:g} can't be met to {tolerance:g}: the nearest is {tried[best]:.2f} with "
        f"global_threshold={best:g}; give more samples or a larger tolerance"
    )


def calibrate(
    model: Any,
    batches: Sequence[dict[str, torch.Tensor]],
    budget: float,
    *,
    individual_threshold: float | None = None,
    tolerance: float = 1.0,
    **options: Any,
) -> Calibration:
    """Find MustDrop's ``global_threshold`` for a budget.

    Parameters
    ----------
    model
        A model loaded with ``method="mustdrop"``. Its reducer is replaced while this runs.
    batches
        Inputs of the model, as its processor makes them.
    budget
        Visual tokens per request that a decoder layer shall receive, averaged over layers and samples.
    individual_threshold
        Attention of the best text token below which a token may leave; None asks the global threshold alone. Under
        the attention that each of a prompt's tokens gets on average, few tokens leave whatever the global threshold.
    tolerance
        How near the mean must come.
    **options
        Further options of the method. With ``counter="release"`` the budget is what the MustDrop release counts.

    Returns
    -------
    Calibration
        The thresholds, with the mean that they give.

    Raises
    ------
    ValueError
        If no threshold meets the budget.
    """

    def token_reduction(threshold: float) -> dict[str, Any]:
        thresholds = {"global_threshold": threshold, "individual_threshold": individual_threshold}
        given = {name: value for name, value in thresholds.items() if value is not None}
        return {"method": "mustdrop", **options, **given}

    counter = "average_visual_tokens_release" if options.get("counter") == "release" else "average_visual_tokens"
    inner, original = model.model, model.model.token_reducer
    samples = sum(len(batch["input_ids"]) for batch in batches)

    def average(threshold: float) -> float:
        llava_next = reductions("llava_next")
        inner.token_reducer = llava_next.build(llava_next.from_dict(token_reduction(threshold)), original.host)
        return sum(sum(getattr(_prefill(model, batch), counter)) for batch in batches) / samples

    try:
        threshold, mean = bisect_threshold(average, budget, tolerance)
    finally:
        inner.token_reducer = original
    return Calibration(token_reduction(threshold), mean, samples)


def task_batches(
    adapter: GenerativeTokenDrop, task: str, limit: int, include_path: Path | None = None
) -> list[dict[str, Any]]:
    """Return the first prompts of a lmms-eval task as inputs of an adapter's model.

    Parameters
    ----------
    adapter
        What the task is prepared for.
    task
        Name of a task there, or of one that comes with lmms-eval.
    limit
        Number of documents.
    include_path
        Folder of task files; None for the bundled ones.

    Raises
    ------
    ValueError
        If there is no such task or folder, or if the limit is no number of documents.
    """
    if limit < 1:
        raise ValueError(f"limit={limit}; allowed: 1 or more")
    manager = task_manager([task], include_path)
    prepared = get_task_dict([task], manager, "simple")[task]
    prepared.build_all_requests(limit=limit, rank=0, world_size=1)
    adapter.task_dict[task] = prepared.dataset
    questions = list(dict.fromkeys(Question.of(request) for request in prepared.instances))
    size = adapter.batches.size
    batches = [questions[start : start + size] for start in range(0, len(questions), size)]
    return [adapter.engine.inputs([adapter.prompt(question) for question in batch]) for batch in batches]


@torch.inference_mode()
def _prefill(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    return cache_of(model(**batch, position_ids=positions, use_cache=True, logits_to_keep=1)).report()
