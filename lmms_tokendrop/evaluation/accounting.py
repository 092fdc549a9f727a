"""What a decoder costs: multiply-accumulates (MACs) and bytes of keys and values, from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def decoder_layer_macs(config: Any, length: int, causal: bool, attended: float | None = None) -> float:
    """MACs of one Llama-like decoder layer.

    Parameters
    ----------
    config
        The decoder's configuration.
    length
        Tokens that the layer processes.
    causal
        Whether attention is counted at half, as a causal kernel needs; otherwise in full, as
        `torch.utils.flop_counter` counts it.
    attended
        Tokens that each of them attends to; None: one another, as in prefill.

    Returns
    -------
    float
        Projections, attention and the gated MLP; norms are left out.
    """
    heads, width = config.num_attention_heads, head_dim(config)
    projections = config.hidden_size * width * (2 * heads + 2 * config.num_key_value_heads)
    attention = 2 * (length if attended is None else attended) * heads * width * (0.5 if causal else 1.0)
    return length * (projections + attention + 3 * config.hidden_size * config.intermediate_size)


def decoder_macs(config: Any, lengths: Sequence[int], causal: bool) -> float:
    """MACs of all layers, given the tokens (text included) that each layer processes."""
    return sum(decoder_layer_macs(config, length, causal) for length in lengths)


def published_macs(config: Any, lengths: Sequence[int]) -> int:
    """MACs of prefill as FastV (arXiv 2403.06764) and DivPrune state them: 4nd² + 2n²d + 2ndm for each layer.

    Today's decoders have three matrices in their MLP, and fewer heads of keys and values.
    """
    width, inner = config.hidden_size, config.intermediate_size
    return sum(length * (4 * width**2 + 2 * length * width + 2 * width * inner) for length in lengths)


def decode_macs(config: Any, lengths: Sequence[float]) -> float:
    """MACs of a generated token, given how many it attends to in each layer, itself included; of several the mean."""
    return sum(decoder_layer_macs(config, 1, causal=False, attended=length) for length in lengths)


def kv_bytes(config: Any, lengths: Sequence[int], dtype: torch.dtype) -> int:
    """Bytes of keys and values, given the tokens that each layer's cache holds."""
    return 2 * config.num_key_value_heads * head_dim(config) * dtype.itemsize * sum(lengths)


def head_dim(config: Any) -> int:
    """Width of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
