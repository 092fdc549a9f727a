"""Random dropping at as many tokens as another method had: the control beside its answer."""

from __future__ import annotations

from statistics import mean
from typing import Any

from lmms_tokendrop.modeling.core.fusion_plan import plan_apart
from lmms_tokendrop.modeling.core.switching import switchable

STEPS = 100
"""Ratios that are tried where an encoder's control has no budget."""


def random_control(model: Any, tokens: float, full: int) -> dict[str, Any]:
    """Options of random dropping that leave about as many image tokens to an average layer.

    Parameters
    ----------
    model
        A reduced model.
    tokens
        Average to come near.
    full
        Image tokens of the unreduced model.

    Returns
    -------
    dict
        In decoders a budget, which is met to half a token; in encoders the ratio that comes nearest.
    """
    if model.can_generate():
        return {"method": "random", "visual_tokens": max(tokens, 1.0)}
    ratios = [step / STEPS for step in range(1, STEPS)]
    return min(
        ({"method": "random", "prune_ratio": ratio} for ratio in ratios),
        key=lambda options: abs(planned_average(model, options, full) - tokens),
    )


def planned_average(model: Any, options: dict[str, Any], full: int) -> float:
    """Image tokens that an average layer of an encoder receives, from counts alone."""
    inner = switchable(model)
    reducer = inner.build_reducer(inner.config.reduction_class.from_dict(options))
    received, _ = plan_apart(reducer, 1, full, inner.config.num_hidden_layers)
    return mean(image for _, image in received)
