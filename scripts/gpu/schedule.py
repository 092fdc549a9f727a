"""The rows of a run in order of value, and how long each takes on an H100 by arithmetic.

Nothing here was measured: seconds are the larger of what the computation, the memory and the host need, at shares of an
H100's peaks that are usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpu.sizes import METHODS, Sizes
from lmms_tokendrop.bench.encoder_variants import HEADLINE
from lmms_tokendrop.benchmark.encoder_accounting import encoder_layer_macs
from lmms_tokendrop.plan.decoder_plan import decoder_plan
from lmms_tokendrop.plan.narrow_model import Counts
from lmms_tokendrop.plan.plans import DECODE, PREFILL, Plan, Request

FLOPS = 0.35 * 989e12
"""Per second, of an H100's dense bfloat16."""

BANDWIDTH = 0.6 * 3.35e12
"""Bytes per second."""

HOST = 1.2e-3
"""Seconds in which the host launches a decoder layer."""

BUILD = 40.0
"""Seconds for imports, the first CUDA call, and weights."""

CARD = 80e9
"""Bytes."""

UNREDUCED = "full"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    kind : str
        `agreement`, `decoder`, `syncs`, `largest` or an encoder's name.
    method : str
        Of the variant.
    seconds : float
        By arithmetic, on an H100.
    budget : int or None
        Visual tokens of a decoder's variant; None: all.
    attention : str
        Kernel.
    """

    kind: str
    method: str
    seconds: float
    budget: int | None = None
    attention: str = "sdpa"

    @property
    def reduction(self) -> dict[str, Any]:
        """Options of a decoder's variant."""
        if self.method == UNREDUCED:
            return {"method": "none"}
        return {"method": self.method, "visual_tokens": self.budget}

    @property
    def name(self) -> str:
        """For tables."""
        parts = (self.kind, self.method, None if self.budget is None else str(self.budget), self.attention)
        return " ".join(part for part in parts if part)


def rows(sizes: Sizes, kernels: tuple[str, ...]) -> Iterator[Row]:
    """Every row, the most valuable first.

    Parameters
    ----------
    sizes
        What is measured.
    kernels
        Attention implementations that are installed, sdpa first.
    """
    headline, *others = sizes.budgets
    variants = [(UNREDUCED, None), *((method, headline) for method in METHODS)]
    for method, budget in variants:
        yield Row("agreement", method, 1.5, budget)
    for method, budget in variants:
        yield Row("decoder", method, decoder_seconds(sizes, budget), budget)
    for method, budget in variants:
        yield Row("syncs", method, decoder_seconds(sizes, budget, repeats=1, new_tokens=1), budget)
    for budget in others:
        for method in METHODS:
            yield Row("decoder", method, decoder_seconds(sizes, budget), budget)
    for method, budget in variants:
        batch, tokens = batch_that_fits(sizes, budget), sizes.new_tokens // 2
        yield Row("largest", method, decoder_seconds(sizes, budget, batch, repeats=1, new_tokens=tokens), budget)
    for name in sizes.encoders:
        for method in HEADLINE:
            yield Row(name, method, sizes.search + sizes.window + 2, attention="")
    for kernel in kernels[1:]:
        for method, budget in variants:
            yield Row("decoder", method, decoder_seconds(sizes, budget), budget, kernel)


def decoder_seconds(
    sizes: Sizes, budget: int | None, batch: int = 1, repeats: int | None = None, new_tokens: int | None = None
) -> float:
    """Seconds of a decoder's row on an H100: a run that is not timed, then runs with vision, prefill and decoding."""
    repeats, new_tokens = repeats or sizes.repeats, new_tokens or sizes.new_tokens
    plan = row_plan(sizes, budget, new_tokens)
    layers = len(plan.visual_tokens)
    vision = 2 * batch * tower_macs(sizes) / FLOPS
    first = max(vision + 2 * batch * plan.macs[PREFILL].full / FLOPS, 2 * layers * HOST)
    computed = 2 * batch * plan.macs[DECODE].full / new_tokens / FLOPS
    token = max(computed, (weight_bytes(sizes) + batch * plan.kv_bytes) / BANDWIDTH, layers * HOST)
    run = first + new_tokens * token
    return run + repeats * (vision + run)


def row_plan(sizes: Sizes, budget: int | None, new_tokens: int) -> Plan:
    """The plan of a variant, as if all layers had its average; without a budget those of the whole image."""
    vision, layers = sizes.config.vision_config, sizes.config.text_config.num_hidden_layers
    counts = Counts.constant(budget or sizes.tiles * (vision.image_size // vision.patch_size) ** 2, layers)
    return decoder_plan(sizes.config, {}, counts, sizes.text_tokens, Request(new_tokens=new_tokens, dtype=sizes.dtype))


def tower_macs(sizes: Sizes) -> float:
    """Multiply-accumulates of the vision tower for the tiles of the image."""
    vision = sizes.config.vision_config
    tokens = 1 + (vision.image_size // vision.patch_size) ** 2
    return sizes.tiles * vision.num_hidden_layers * encoder_layer_macs(vision, tokens, tokens)


def weight_bytes(sizes: Sizes) -> int:
    """Bytes of the decoder's weights."""
    text = sizes.config.text_config
    layer = text.hidden_size * (4 * text.hidden_size + 3 * text.intermediate_size)
    return sizes.dtype.itemsize * (text.num_hidden_layers * layer + 2 * text.vocab_size * text.hidden_size)


def batch_that_fits(sizes: Sizes, budget: int | None) -> int:
    """Requests whose caches, and twice their largest activations, fit beside the weights; at most `largest_batch`."""
    plan, text = row_plan(sizes, budget, 16), sizes.config.text_config
    longest = row_plan(sizes, None, 16).visual_tokens[0] + sizes.text_tokens
    activations = 2 * longest * (text.hidden_size + 2 * text.intermediate_size) * sizes.dtype.itemsize
    fits = (0.9 * CARD - 1.1 * weight_bytes(sizes)) / (plan.kv_bytes + activations)
    return max(1, min(int(fits), sizes.largest_batch))
