"""An encoder's rows: one search of the batch size, then one window, as PuMer's paper measures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpu.schedule import CARD, Row
from gpu.sizes import Sizes
from lmms_tokendrop.bench.peak_memory import memory_use
from lmms_tokendrop.bench.throughput_protocol import examples_per_second, try_batch_sizes
from lmms_tokendrop.bench.timing import clock_of

MOST = 0.9
"""Share of the memory that may be taken."""


@torch.inference_mode()
def measure(row: Row, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Examples per second of a variant at the batch size that is best of those that the search had time for."""
    encoder = sizes.encoders[row.kind]
    variant = encoder.variant(row.method)
    model = encoder.build(variant, sizes.dtype, device)
    inputs: dict[int, dict[str, torch.Tensor]] = {}
    clock = clock_of(device)

    def run(batch: int) -> None:
        if batch not in inputs:
            inputs.clear()
            inputs[batch] = encoder.inputs(batch, sizes.dtype, device)
        model(**inputs[batch])

    limit = MOST * (torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else CARD)
    rates = try_batch_sizes(
        run,
        doubled(encoder.first_batch, sizes.search, clock),
        limit,
        sizes.search / 8,
        clock=clock,
        measure_memory=partial(memory_use, device=device),
    )
    best = max(rates, key=rates.get)
    run(best)
    return {
        "tried": rates,
        "batch_size": best,
        "examples_per_second": examples_per_second(partial(run, best), best, sizes.window, clock),
        "macs": encoder.variant_macs(variant),
    }


def doubled(first: int, seconds: float, clock) -> Iterator[int]:
    """Batch sizes, until so much time is gone; one at least."""
    start, batch = clock(), first
    yield batch
    while clock() - start < seconds:
        batch *= 2
        yield batch
