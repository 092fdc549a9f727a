"""From what a command is given to what it measures: the parts of decoders and of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from lmms_tokendrop.bench.batches import FIRST_BATCH, Limits, measure_batches, measure_memory
from lmms_tokendrop.bench.encoder_variants import ENCODERS, HEADLINE, STOCK
from lmms_tokendrop.bench.measuring import PARTS, Progress, measure
from lmms_tokendrop.bench.setting import Setting, reductions_for
from lmms_tokendrop.bench.throughput import Settings, measure_throughput
from lmms_tokendrop.bench.throughput import measure_memory as measure_encoder_memory
from lmms_tokendrop.bench.training_step import measure_training_step
from lmms_tokendrop.evaluation.loading import resolve_device
from lmms_tokendrop.modeling.core.options import checked_number

DECODER_PARTS = (*PARTS, "throughput", "memory")
ENCODER_PARTS = ("throughput", "memory", "training")
ENCODER_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Batches:
    """Options of throughput, memory and training; see the command."""

    batch_size: int | None
    max_batch_size: int | None
    max_memory: float
    seconds: float
    window: float
    memory_batch_size: int | None
    training_steps: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_batch_size", "memory_batch_size", "training_steps"):
            if getattr(self, name) is not None:
                checked_number(name, getattr(self, name), whole=True, low=1)
        for name in ("seconds", "window"):
            checked_number(name, getattr(self, name), whole=False, low=0)
        checked_number("max_memory", self.max_memory, whole=False, low=0, high=1)

    def bytes_allowed(self, device: torch.device) -> float:
        """Of the machine's memory, or of a GPU's."""
        on_cuda = device.type == "cuda"
        total = torch.cuda.get_device_properties(device).total_memory if on_cuda else psutil.virtual_memory().total
        return self.max_memory * total

    def check_first(self, first: int) -> None:
        """Fail if not even the first batch size may be tried."""
        if self.max_batch_size is not None and self.max_batch_size < first:
            raise ValueError(
                f"max_batch_size={self.max_batch_size}; allowed: {first}, the first that is tried, or more"
            )


def set_threads(threads: int | None) -> None:
    """Have torch use so many threads; None: its own choice."""
    if threads is not None:
        torch.set_num_threads(checked_number("threads", threads, whole=True, low=1))


def checked_parts(wanted: Sequence[str] | None, allowed: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """The parts to measure.

    Raises
    ------
    ValueError
        If one is unknown, or none is named.
    """
    parts = tuple(default if wanted is None else dict.fromkeys(wanted))
    if not parts or not set(parts) <= set(allowed):
        raise ValueError(f"parts={','.join(parts)}; allowed: {', '.join(allowed)}")
    return parts


def decoder_results(
    setting: Setting,
    methods: Sequence[str] | None,
    wanted: Sequence[str] | None,
    published: bool,
    batches: Batches,
    progress: Progress,
) -> dict[str, Any]:
    """Measure a decoder's variants.

    Raises
    ------
    ValueError
        If an option is wrong, before anything is measured.
    """
    parts = checked_parts(wanted, DECODER_PARTS, PARTS)
    reductions = reductions_for(setting, ["mustdrop"] if methods is None else methods)
    if published and (setting.batch_size > 1 or {one["method"] for one in reductions.values()} != {"mustdrop"}):
        raise ValueError("published: it runs beside mustdrop alone, one request at a time")
    if "throughput" in parts:
        batches.check_first(FIRST_BATCH)
    memory = setting.of_batch(batches.memory_batch_size or setting.batch_size)
    device = torch.device(setting.device)
    results = {"parts": parts, **measure(setting, reductions, parts, published, progress)}
    if "memory" in parts:
        results["memory"] = measure_memory(memory, reductions, progress)
    if "throughput" in parts:
        limits = Limits(
            batches.seconds, batches.window, batches.bytes_allowed(device), batches.batch_size, batches.max_batch_size
        )
        results["throughput"] = measure_batches(setting, reductions, limits, results["stock_attention"], progress)
    return results


def encoder_results(
    name: str,
    names: Sequence[str] | None,
    wanted: Sequence[str] | None,
    batches: Batches,
    device: str,
    dtype: str,
    progress: Progress,
) -> dict[str, Any]:
    """Measure an encoder's variants by PuMer's protocol.

    Raises
    ------
    ValueError
        If an option is wrong, before anything is measured.
    """
    encoder = ENCODERS[name]
    parts = checked_parts(wanted, ENCODER_PARTS, ENCODER_PARTS[:2])
    if dtype not in ENCODER_DTYPES:
        raise ValueError(f"dtype={dtype!r}; allowed for {name}: {', '.join(ENCODER_DTYPES)}")
    variants = list(encoder.variants) if names is None else [encoder.variant(one) for one in dict.fromkeys(names)]
    batches.check_first(encoder.first_batch)
    where = resolve_device(device)
    settings = Settings(
        dtype=getattr(torch, dtype),
        device=where,
        seconds=batches.seconds,
        window=batches.window,
        memory_limit=batches.bytes_allowed(where),
        max_batch_size=batches.max_batch_size,
    )
    headline = [encoder.variant(one) for one in HEADLINE]
    small = batches.memory_batch_size or 8
    results: dict[str, Any] = settings.conditions(encoder)

    def say(text: str) -> None:
        progress(text, 0, 1)

    # memory first: afterwards this process is large
    if "memory" in parts:
        results["memory"] = measure_encoder_memory(encoder, headline, settings, small, say)
    if "throughput" in parts:
        results["throughput"] = measure_throughput(encoder, variants, settings, batches.batch_size, say)
    if "training" in parts:
        trained = [variant for variant in headline if variant.name != STOCK]
        results["training_step"] = measure_training_step(
            encoder, trained, settings.dtype, small, batches.training_steps, say, where
        )
    return results
