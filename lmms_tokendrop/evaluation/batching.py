"""Run work in batches whose size may have to shrink until it fits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Output = TypeVar("Output")

CPU_BATCH_SIZE = 8
LARGEST_BATCH_SIZE = 64


class Batches:
    """Batch size N, or ``"auto"``: on CUDA halve it when memory runs out, on a CPU take 8.

    Parameters
    ----------
    batch_size
        A positive number or ``"auto"``.
    device
        Where the model runs.
    largest
        Where ``"auto"`` starts on CUDA.

    Attributes
    ----------
    size : int
        The size in use.
    """

    def __init__(self, batch_size: int | str, device: torch.device, *, largest: int | None = None) -> None:
        if largest is not None and not _is_positive(largest):
            raise ValueError(f"max_batch_size must be a positive integer, not {largest!r}")
        self.shrinks = batch_size == "auto" and device.type == "cuda"
        if batch_size == "auto":
            self.size = int(largest or LARGEST_BATCH_SIZE) if self.shrinks else CPU_BATCH_SIZE
        elif _is_positive(batch_size):
            self.size = int(batch_size)
        else:
            raise ValueError(f"batch_size must be a positive integer or 'auto', not {batch_size!r}")

    def run(
        self, items: Sequence[Item], function: Callable[[Sequence[Item]], Sequence[Output]]
    ) -> Iterator[tuple[Item, Output]]:
        """Yield every item with its output; a batch that doesn't fit is tried again at half the size."""
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                outputs = function(batch)
            except torch.OutOfMemoryError:
                if not self.shrinks or len(batch) == 1:
                    raise
                self.size = len(batch) // 2
                logger.warning(f"out of memory with {len(batch)} requests; the batch size is now {self.size}")
            else:
                yield from zip(batch, outputs, strict=True)
                start += len(batch)
                continue
            torch.cuda.empty_cache()


def _is_positive(size: int | str) -> bool:
    return str(size).isdecimal() and int(size) > 0
