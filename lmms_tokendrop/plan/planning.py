"""A variant beside the unreduced model, and the budget with which it meets a limit."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.modeling.core.budget import UnreachableBudget
from lmms_tokendrop.modeling.core.fusion_plan import NothingReduced
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.plan.decoder_plan import plan_decoder
from lmms_tokendrop.plan.encoder_plan import plan_encoder
from lmms_tokendrop.plan.plans import Plan, Request
from lmms_tokendrop.plan.targets import Target

BUDGETS: dict[str, Callable[[Plan], Sequence[float]]] = {
    "visual_tokens": lambda plan: range(int(plan.average_input), 0, -1),
    "keep_ratio": lambda plan: [share / 1000 for share in range(999, 0, -1)],
    "prune_ratio": lambda plan: [share / 1000 for share in range(1, 1000)],
    "r": lambda plan: range(1, plan.visual_tokens[0]),
    "vision_r": lambda plan: range(1, plan.visual_tokens[0]),
}
"""Options by which a method leaves fewer tokens, and their values given the unreduced plan, the one that leaves most
first; a method's own is the first that it has."""


def plan(target: Target, reduction: Mapping[str, Any], request: Request) -> Plan:
    """Plan any model; see :func:`plan_decoder` and :func:`plan_encoder`."""
    return (plan_decoder if target.architecture.generates else plan_encoder)(target, reduction, request)


@dataclass(frozen=True)
class Limit:
    """What a budget has to meet.

    Parameters
    ----------
    name
        How errors call it.
    value
        Most bytes of all caches, or least speed-up.
    """

    name: str
    value: float

    def met(self, reduced: Plan, unreduced: Plan) -> bool:
        """Whether a plan meets it: the bytes, or the speed-up of prefill or of the encoder, attention causal."""
        if self.name == "memory":
            return reduced.kv_bytes_of_all <= self.value
        return next(iter(reduced.speed_ups(unreduced).values())).causal >= self.value


def fitted(
    target: Target,
    reduction: Mapping[str, Any],
    request: Request,
    unreduced: Plan,
    limit: Limit,
    step: Callable[..., object] = dict,
) -> Plan:
    """Find the budget that leaves the most tokens and meets a limit.

    Parameters
    ----------
    target
        The model.
    reduction
        Options beside the budget.
    request
        What it is asked.
    unreduced
        The plan without reduction.
    limit
        What is to be met.
    step
        Told at each step how many there are at most, as `total`.

    Returns
    -------
    Plan
        With the budget in its `token_reduction`.

    Raises
    ------
    ValueError
        If the method has no budget, or if none of its budgets meets the limit.
    """
    name = budget_option(target, reduction)
    if limit.name == "memory" and not unreduced.kv_bytes:
        raise ValueError(f"memory is that of a decoder's cache; {target.architecture.name} has none, give speed_up")
    values = BUDGETS[name](unreduced)

    def at(value: float) -> Plan:
        return plan(target, {**reduction, name: value}, request)

    def meets(value: float) -> bool:
        step(total=math.ceil(math.log2(len(values) + 1)))
        try:
            return limit.met(at(value), unreduced)
        except NothingReduced:
            return False
        except UnreachableBudget:
            return True  # if no larger budget meets the limit, this one's error is what is raised

    found = bisect_left(values, True, key=meets)
    if found == len(values):
        raise ValueError(f"{limit.name}={limit.value:g}: no {name} of {reduction['method']} meets it")
    try:
        return at(values[found])
    except UnreachableBudget as error:
        raise ValueError(f"{limit.name}={limit.value:g}: {reduction['method']} can't meet it; {error}") from error


def budget_option(target: Target, reduction: Mapping[str, Any]) -> str:
    """The option of a method that says how many tokens it leaves.

    Raises
    ------
    ValueError
        If it has none, or if it is given.
    """
    known, method = reductions(target.architecture.name), reduction["method"]
    offered = known.offered(known.options_of(method))
    found = [name for name in BUDGETS if name in offered]
    if method == UNREDUCED or not found:
        raise ValueError(f"memory and speed_up look for a budget, and {method!r} has none; name another model")
    if found[0] in reduction:
        raise ValueError(f"{found[0]} is given, and memory and speed_up look for it; give one of them")
    return found[0]
