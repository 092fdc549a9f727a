"""A decoder's rows: time, memory and bytes of the cache, host synchronisations, and agreement with the CPU."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gpu.schedule import Row, batch_that_fits
from gpu.sizes import Sizes, tiny
from lmms_tokendrop import cache_of, set_token_reduction
from lmms_tokendrop.bench.prompts import Prompt
from lmms_tokendrop.bench.timing import clock_of
from lmms_tokendrop.evaluation.accounting import kv_bytes
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument
from lmms_tokendrop.plan.targets import Target

SYNCHRONISED = "called a synchronizing"
"""What PyTorch's warning of a synchronisation says."""

Found = dict[str, Any]


class Decoder:
    """The decoder's model, made on its device, and a prompt; its method is switched from row to row.

    Parameters
    ----------
    sizes
        Of the model and of what is measured.
    device
        Where it runs.
    """

    def __init__(self, sizes: Sizes, device: torch.device):
        self.sizes, self.device = sizes, device
        self.model = made(sizes.target, device, sizes.dtype)
        self.clock = clock_of(device)

    def measure(self, row: Row) -> Found:
        """Measure a row."""
        set_token_reduction(self.model, row.reduction)
        self.model.set_attn_implementation(row.attention)
        with torch.inference_mode():
            return getattr(self, row.kind)(row)

    def decoder(self, row: Row) -> Found:
        """Batch 1."""
        return self._timed(1, self.sizes.repeats, self.sizes.new_tokens)

    def largest(self, row: Row) -> Found:
        """The largest batch that fits, from the one that arithmetic gives downwards."""
        batch = batch_that_fits(self.sizes, row.budget)
        while True:
            try:
                return self._timed(batch, 1, self.sizes.new_tokens // 2)
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                batch = batch * 3 // 4
            torch.cuda.empty_cache()

    def syncs(self, row: Row) -> Found:
        """Synchronisations of the host in a prefill and in a step; None where there is no GPU."""
        inputs = prompt(self.model, self.sizes, 1).whole
        self._run(inputs, 1)
        with synchronisations(self.device) as seen:
            output = self.model(**inputs, use_cache=True, logits_to_keep=1)
            prefill = len(seen)
            self._step(output)
        counted = self.device.type == "cuda"
        return {"prefill": prefill if counted else None, "step": len(seen) - prefill if counted else None}

    def _timed(self, batch: int, repeats: int, new_tokens: int) -> Found:
        asked = prompt(self.model, self.sizes, batch)
        inputs = asked.whole
        self._run(inputs, new_tokens)  # every length was met once
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        times, cache = [], None
        for _ in range(repeats):
            cache = None  # one at a time
            *seconds, cache = self._run(inputs, new_tokens)
            times.append(seconds)
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        vision = [self._seconds(lambda: self.model.model.get_image_features(**asked.image)) for _ in range(repeats)]
        lengths = [layer.get_seq_length() for layer in cache.layers]
        expected = batch * kv_bytes(self.model.config.text_config, lengths, self.sizes.dtype)
        if cache.kv_bytes != expected:
            raise RuntimeError(f"the cache has {cache.kv_bytes} bytes; its lengths say {expected}")
        report = cache.report()
        return {
            "batch_size": batch,
            "new_tokens": new_tokens,
            "visual_tokens": report.average_visual_tokens[0],
            "vision_seconds": spread(vision),
            "first_token_seconds": spread([first for first, _ in times]),
            "token_seconds": spread([decode / new_tokens for _, decode in times]),
            "peak_bytes": peak,
            "kv_bytes": cache.kv_bytes,
        }

    def _run(self, inputs: dict[str, Any], new_tokens: int) -> tuple[float, float, Any]:
        """Seconds until the first token and of all that follow it, and the cache."""
        start = self.clock()
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        first = self.clock()
        for _ in range(new_tokens):
            output = self._step(output)
        return first - start, self.clock() - first, cache_of(output)

    def _step(self, output: Any) -> Any:
        token = output.logits[:, -1:].argmax(-1)
        return self.model(input_ids=token, use_cache=True, **cache_argument(cache_of(output)))

    def _seconds(self, run) -> float:
        start = self.clock()
        run()
        return self.clock() - start


def agreement(row: Row, device: torch.device) -> Found:
    """How far the logits of a tiny model in float32 are from the CPU's, and whether the same tokens stay."""
    sizes = tiny()
    reduction = row.reduction if row.budget is None else {**row.reduction, "visual_tokens": sizes.budgets[0]}
    model = made(sizes.target, torch.device("cpu"), torch.float32)
    set_token_reduction(model, reduction)
    inputs = prompt(model, sizes, 1).whole
    with torch.inference_mode():
        here = model(**inputs, use_cache=True)
        there = model.to(device)(**{name: value.to(device) for name, value in inputs.items()}, use_cache=True)
    kept = [cache_of(output).report().kept for output in (here, there)]
    return {
        "largest_difference": float((here.logits[:, -1] - there.logits[:, -1].cpu()).abs().max()),
        "largest_logit": float(here.logits[:, -1].abs().max()),
        "same_tokens": kept[0] == kept[1],
    }


def made(target: Target, device: torch.device, dtype: torch.dtype) -> Any:
    """The reduced class of a target with random weights, made where and as it is used."""
    family, before = target.architecture, torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            return family.load(family.model_class(family.heads[0]))(target.config()).eval()
    finally:
        torch.set_default_dtype(before)


def prompt(model: Any, sizes: Sizes, batch: int) -> Prompt:
    """Of the sizes' image and text."""
    width, height = sizes.image
    return Prompt.of(model, (height, width), sizes.text_tokens, batch)


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


@contextmanager
def synchronisations(device: torch.device) -> Iterator[list]:
    """Collect PyTorch's warnings of synchronisations; none without a GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        seen = _Synchronised(caught)
        try:
            yield seen
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


class _Synchronised:
    """Counts those warnings among others."""

    def __init__(self, caught: list):
        self.caught = caught

    def __len__(self) -> int:
        return sum(SYNCHRONISED in str(warning.message) for warning in self.caught)
