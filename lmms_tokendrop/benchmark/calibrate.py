"""Find the option whose average number of visual tokens meets a budget on given samples.

This is for methods of which the data decide how many tokens are left. The MustDrop paper
(https://arxiv.org/abs/2411.10803) tunes its thresholds for each benchmark so that the average over the benchmark meets
the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lmms_eval.tasks import get_task_dict

from lmms_tokendrop.evaluation.bisection import bisected
from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop
from lmms_tokendrop.evaluation.prompts import Question
from lmms_tokendrop.evaluation.task_managers import task_manager
from lmms_tokendrop.modeling.core.options import Reductions
from lmms_tokendrop.modeling.core.switching import use_token_reduction
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


@dataclass(frozen=True)
class Calibration:
    """Options and what they give.

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


def calibrated_option(methods: Reductions, method: str) -> tuple[str, float]:
    """The option of a method that is calibrated, and its largest value; a ValueError if the method has none."""
    found = methods.options_of(method).calibrated
    if found is None:
        known = [name for name in methods.reducers if methods.options_of(name).calibrated is not None]
        raise ValueError(
            f"method={method!r} has no option to calibrate; allowed here: {', '.join(known) or 'no method'}"
        )
    return found


def calibrate(
    model: Any,
    batches: Sequence[dict[str, torch.Tensor]],
    budget: float,
    *,
    tolerance: float = 1.0,
    **options: Any,
) -> Calibration:
    """Find the option by which a method whose counts depend on the data meets a budget.

    Parameters
    ----------
    model
        A model loaded with the method, such as MustDrop (``global_threshold``) or SparseVLM (``rank_ratio``).
    batches
        Inputs of the model, as its processor makes them.
    budget
        Visual tokens per request that a decoder layer shall receive, averaged over layers and samples.
    tolerance
        How near the mean must come.
    **options
        Further options of the method. With ``counter="release"`` the budget is what the MustDrop release counts. Under
        MustDrop's ``individual_threshold`` the best text token's attention must be lower, too: below what each of a
        prompt's tokens gets on average, few tokens leave whatever the global threshold.

    Returns
    -------
    Calibration
        The options, with the mean that they give.

    Raises
    ------
    ValueError
        If the method counts by itself, if the option is given, if no value of it meets the budget, or if budget or
        tolerance is no positive number.
    """
    for given, number in (("budget", budget), ("tolerance", tolerance)):
        if not 0 < number < math.inf:
            raise ValueError(f"{given}={number:g}; allowed: a finite number above 0")
    methods, method = model.config.reduction_class, model.config.token_reduction["method"]
    name, largest = calibrated_option(methods, method)
    if name in options:
        raise ValueError(f"{name}={options[name]!r}: this is what is calibrated; leave it out")
    counter = "average_visual_tokens_release" if options.get("counter") == "release" else "average_visual_tokens"
    samples = sum(len(batch["input_ids"]) for batch in batches)

    def token_reduction(value: float) -> dict[str, Any]:
        return {"method": method, **options, name: value}

    def average(value: float) -> float:
        with use_token_reduction(model, token_reduction(value)):
            return sum(sum(getattr(_prefill(model, batch), counter)) for batch in batches) / samples

    value, mean = bisected(average, budget, tolerance, name, low=0.0, high=largest)
    return Calibration(token_reduction(value), mean, samples)


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
