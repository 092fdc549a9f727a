"""Run a variant on a task through lmms-eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model

from lmms_tokendrop.evaluation.task_managers import task_manager

REDUCTION = "reduction"
"""Key of the results under which the options of the reduction are, defaults included."""

LAYERS = "visual_tokens_per_layer"
"""Key of those under which the tokens of each layer are."""


def run_task(
    model_id: str,
    task: str,
    model_args: Mapping[str, Any],
    *,
    limit: int | None = None,
    batch_size: int | str = "auto",
    device: str | None = None,
    include_path: Path | None = None,
    on_answer: Callable[[int, int], None] | None = None,
) -> dict[str, Any] | None:
    """Run a variant on a task.

    Parameters
    ----------
    model_id
        Of the variant.
    task
        Name of a task in `include_path`, or of lmms-eval's own.
    model_args
        As for ``--model_args``, the checkpoint among them.
    limit
        The first so many documents; None for all.
    batch_size, device
        As for lmms-eval.
    include_path
        Folder of task files; None for the bundled ones.
    on_answer
        As for `lmms_tokendrop.evaluation.adapter.TokenDropAdapter`.

    Returns
    -------
    dict or None
        lmms-eval's results, samples included, under `REDUCTION` the options of the reduction, and under `LAYERS` the
        visual tokens that each layer received, means over samples; None in all processes but the first.

    Raises
    ------
    ValueError
        For arguments that the variant does not take, and for a task that is not there.
    """
    manager = task_manager([task], include_path)
    adapter = get_model(model_id)(**model_args, batch_size=batch_size, device=device)
    adapter.on_answer = on_answer
    reduction = adapter.engine.model.config.token_reduction
    results = simple_evaluate(
        model=adapter, tasks=[task], task_manager=manager, batch_size=batch_size, limit=limit, bootstrap_iters=0
    )
    return None if results is None else {**results, REDUCTION: reduction, LAYERS: adapter.ledger.layers}
