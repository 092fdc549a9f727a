"""Throughput, memory and training time of an encoder's variants, beside the unreduced encoder, in one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from lmms_tokendrop.bench.encoder_variants import CPU, FULL, STOCK, TEXT_TOKENS, MeasuredEncoder, Variant
from lmms_tokendrop.bench.machine import machine
from lmms_tokendrop.bench.peak_memory import MemoryUse, in_fresh_process, memory_use
from lmms_tokendrop.bench.throughput_protocol import BATCH_STEP, Spread, alternate, speed_up, try_batch_sizes
from lmms_tokendrop.bench.timing import clock_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What all parts of a measurement share.

    Attributes
    ----------
    dtype : torch.dtype
        Of weights and images.
    device : torch.device
        Where they are.
    seconds, window : float
        Shortest time of each model over all rounds, and in one of them.
    memory_limit : float
        Bytes that the process may take while the batch size is raised.
    max_batch_size : int or None
        Largest batch size to try.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    seconds: float = 30.0
    window: float = 3.0
    memory_limit: float = float("inf")
    max_batch_size: int | None = None

    def batch_sizes(self, first: int) -> Iterable[int]:
        """The batch sizes to try."""
        if self.max_batch_size is None:
            return itertools.count(first, BATCH_STEP)
        return range(first, self.max_batch_size + 1, BATCH_STEP)

    def conditions(self, architecture: MeasuredEncoder) -> dict[str, Any]:
        """What was measured on what, as JSON types."""
        return {
            "model": architecture.title,
            "image_size": architecture.config(architecture.variants[0]).image_size,
            "text_tokens": TEXT_TOKENS,
            "dtype": str(self.dtype).removeprefix("torch."),
            **machine(self.device),
        }


@torch.inference_mode()
def measure_throughput(
    architecture: MeasuredEncoder,
    variants: Sequence[Variant],
    settings: Settings,
    batch_size: int | None = None,
    say: Say = print,
) -> list[dict[str, Any]]:
    """Find each variant's best batch size and time all of them in turn.

    Parameters
    ----------
    architecture
        The encoder.
    variants
        Its variants; all share one set of random weights.
    settings
        Times and limits.
    batch_size
        Of every variant; None: the best of each.
    say
        Told of every step.

    Returns
    -------
    list of dict
        Per variant: `name`, `token_reduction`, `batch_size`, `tried` (examples per second of each batch size),
        `rounds`, `examples_per_second` (spread over rounds), `macs`, and against `stock` and `full`, where these were
        measured, `speed_up_over_...` (spread of the ratios within rounds), `macs_speed_up` and `quotient`, the median
        speed-up over `full` divided by it; `paper` is the published speed-up.
    """
    models = sharing_weights(architecture, variants, settings.dtype, settings.device)
    run, clock = _Batches(architecture, settings.dtype, settings.device), clock_of(settings.device)
    sizes, tried = {}, {}
    for name, model in models.items():
        rates = {}
        if batch_size is None:
            sizes_to_try = settings.batch_sizes(architecture.first_batch)
            rates = try_batch_sizes(
                partial(run, model),
                sizes_to_try,
                settings.memory_limit,
                settings.window,
                clock=clock,
                measure_memory=partial(memory_use, device=settings.device),
            )
        tried[name] = rates
        sizes[name] = batch_size or max(rates, key=rates.get)
        say(f"{name}: batch size {sizes[name]}" + (f" of {', '.join(map(str, rates))}" if rates else ""))
    runs = {name: partial(run, model, sizes[name]) for name, model in models.items()}
    rates = alternate(runs, sizes, settings.seconds, settings.window, clock)
    macs = {variant.name: architecture.variant_macs(variant) for variant in variants}
    rows = []
    for variant in variants:
        row = {
            "name": variant.name,
            "token_reduction": variant.token_reduction,
            "batch_size": sizes[variant.name],
            "tried": tried[variant.name],
            "rounds": len(rates[variant.name]),
            "examples_per_second": asdict(Spread.of(rates[variant.name])),
            "macs": macs[variant.name],
            "paper": variant.paper,
        }
        for baseline in {STOCK, FULL} & set(rates):
            row[f"speed_up_over_{baseline}"] = asdict(speed_up(rates[variant.name], rates[baseline]))
        if FULL in rates:
            row["macs_speed_up"] = macs[FULL] / macs[variant.name]
            row["quotient"] = row[f"speed_up_over_{FULL}"]["median"] / row["macs_speed_up"]
        say(f"{variant.name}: {row['examples_per_second']['median']:.2f} examples/s")
        rows.append(row)
    return rows


def measure_memory(
    architecture: MeasuredEncoder, variants: Sequence[Variant], settings: Settings, batch_size: int, say: Say = print
) -> list[dict[str, Any]]:
    """Peak memory of a forward pass, each in a process of its own, with and without gradients.

    Returns
    -------
    list of dict
        Per variant and mode (`inference`, or `grad`, which keeps what a backward pass would need): `name`, `mode`,
        `batch_size`, `before` (resident bytes with weights and inputs), `peak`, and where `full` was measured
        `change_of_peak` and `change_of_added`, relative to it; the latter without what was there before.
    """
    rows = []
    for mode in ("inference", "grad"):
        used = {
            variant.name: in_fresh_process(forward_memory, architecture, variant, settings, batch_size, mode)
            for variant in variants
        }
        for variant in variants:
            use = used[variant.name]
            row = {"name": variant.name, "mode": mode, "batch_size": batch_size, **asdict(use)}
            if FULL in used:
                row["change_of_peak"] = use.peak / used[FULL].peak - 1
                row["change_of_added"] = use.added / used[FULL].added - 1
            say(f"{variant.name}, {mode}: peak {use.peak / 1e9:.2f} GB")
            rows.append(row | {"paper": variant.paper_memory})
    return rows


def forward_memory(
    architecture: MeasuredEncoder, variant: Variant, settings: Settings, batch_size: int, mode: str
) -> MemoryUse:
    """Memory of one forward pass in this process; its output is kept, and in mode `grad` what backward would need."""
    model = architecture.build(variant, settings.dtype, settings.device)
    inputs = architecture.inputs(batch_size, settings.dtype, settings.device)
    with torch.inference_mode() if mode == "inference" else nullcontext():
        return memory_use(lambda: model(**inputs), settings.device)


class _Batches:
    """Runs a model on a batch of a size; the inputs of that size are made once."""

    def __init__(self, architecture: MeasuredEncoder, dtype: torch.dtype, device: torch.device):
        self.architecture, self.dtype, self.device = architecture, dtype, device
        self.inputs: dict[int, dict[str, torch.Tensor]] = {}

    def __call__(self, model: PreTrainedModel, batch_size: int) -> None:
        """Run one batch."""
        if batch_size not in self.inputs:
            self.inputs[batch_size] = self.architecture.inputs(batch_size, self.dtype, self.device)
        model(**self.inputs[batch_size])


def sharing_weights(
    architecture: MeasuredEncoder,
    variants: Sequence[Variant],
    dtype: torch.dtype,
    device: torch.device = CPU,
) -> dict[str, PreTrainedModel]:
    """Variants whose common parameters are the same tensors."""
    models: dict[str, PreTrainedModel] = {}
    shared: dict[str, torch.Tensor] = {}
    for variant in variants:
        model = models[variant.name] = architecture.build(variant, dtype, device)
        own = model.state_dict()
        model.load_state_dict({name: shared.setdefault(name, value) for name, value in own.items()}, assign=True)
    return models
