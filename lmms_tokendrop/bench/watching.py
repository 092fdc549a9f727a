"""What parts of a forward pass take, told apart by the functions of this package that do them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lmms_tokendrop.bench.timing import Clock
from lmms_tokendrop.modeling.core import decoder_run, staged_tower
from lmms_tokendrop.modeling.core.decoder_attention import RowScores
from lmms_tokendrop.modeling.core.staged_prefill import StagedPrefill
from lmms_tokendrop.modeling.core.staged_tower import TowerRun

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "rows": ((RowScores, "over_cache"), (decoder_run, "rotated_keys")),
    "decoder": ((StagedPrefill, "leave"), (StagedPrefill, "finish")),
    "tower": ((TowerRun, "leave"), (staged_tower, "cls_attention")),
}
"""Attention rows in the decoder; everything that stages do there, rows included; and everything in the tower."""


def _sdpa_flops(query, key, value, *args, **kwargs) -> int:
    """From the shapes of its first three arguments."""
    return sdpa_flop_count(query, key, value)


CPU_SDPA = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}
"""What torch's counter does not know yet."""


@contextmanager
def seconds_of_parts(clock: Clock) -> Iterator[Counter[str]]:
    """Yield a counter of the seconds that each of `PARTS` takes, stages before the first layer as `before`."""
    spent: Counter[str] = Counter()

    def timed(part: str, function: Callable) -> Callable:
        @wraps(function)
        def run(*args, **kwargs):
            start = clock()
            result = function(*args, **kwargs)
            spent["before" if part == "decoder" and args[1:2] == (-1,) else part] += clock() - start
            return result

        return run

    with _replaced(timed):
        yield spent


@contextmanager
def flops_of_layers(*rotary: type) -> Iterator[Callable[[], int]]:
    """Yield a function that says how many floating point operations ran so far, those of `PARTS` left out.

    Parameters
    ----------
    *rotary
        Classes of modules that are left out, too: those of rotary positions.
    """
    outside = 0

    def uncounted(part: str, function: Callable) -> Callable:
        @wraps(function)
        def run(*args, **kwargs):
            nonlocal outside
            if depth:
                return function(*args, **kwargs)
            depth.append(part)
            try:
                with FlopCounterMode(display=False, custom_mapping=CPU_SDPA) as inner:
                    return function(*args, **kwargs)
            finally:
                depth.pop()
                outside += inner.get_total_flops()

        return run

    depth: list[str] = []
    rotary_parts = {"rotary": tuple((kind, "forward") for kind in rotary)}
    with (
        _replaced(uncounted, PARTS | rotary_parts),
        FlopCounterMode(display=False, custom_mapping=CPU_SDPA) as everything,
    ):
        yield lambda: everything.get_total_flops() - outside


@contextmanager
def _replaced(wrap: Callable[[str, Callable], Callable], parts=None) -> Iterator[None]:
    """Put something around each function of `PARTS` for a while."""
    with ExitStack() as stack:
        for part, places in (PARTS if parts is None else parts).items():
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, wrap(part, getattr(owner, name))))
        yield
