"""Attention in encoders: sdpa or eager, policies, and the probabilities of a few queries beside it."""

import math
from typing import Any

import torch
from torch import nn

from ..ops.eager_parts import on_host
from ..ops.token_ops import padded_indices

POLICY_EPS = 1e-6


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    sdpa: bool = True,
    policy: torch.Tensor | None = None,
    itself: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend to every key.

    Parameters
    ----------
    query, key, value : torch.Tensor
        `[batch, heads, queries, head_dim]`, the others `[batch, heads, keys, head_dim]`.
    bias : torch.Tensor or None
        Added to logits, `[batch, 1, 1, keys]`.
    dropout : float
        Share of probabilities that is dropped.
    sdpa : bool
        Whether to run through sdpa, which gives no probabilities; not together with `policy`.
    policy, itself : torch.Tensor or None
        How much each key counts; see :func:`policy_softmax`.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor or None]
        Context `[batch, queries, heads * head_dim]`, and probabilities `[batch, heads, queries, keys]` without sdpa.
    """
    probabilities = None
    if sdpa and policy is None:
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    else:
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if bias is not None:
            logits = logits + bias
        probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, itself)
        probabilities = nn.functional.dropout(probabilities, dropout)
        context = probabilities @ value
    return context.transpose(1, 2).flatten(2), probabilities


def policy_softmax(logits: torch.Tensor, policy: torch.Tensor, itself: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax in which keys count as much as a policy says (DynamicViT, training).

    Parameters
    ----------
    logits : torch.Tensor
        `[batch, heads, queries, keys]`.
    policy : torch.Tensor
        `[batch, keys]`, from 0 to 1; gradients flow into it.
    itself : torch.BoolTensor or None
        `[batch or 1, queries, keys]`, keys that count in full, as a query does for itself; None: there are none.

    Returns
    -------
    torch.Tensor
        Probabilities in the shape and dtype of `logits`.
    """
    weight = policy.float()[:, None, None, :]
    if itself is not None:
        weight = weight + (1 - weight) * itself.unsqueeze(1)
    scaled = (logits.float() - logits.float().amax(-1, keepdim=True).detach()).exp() * weight
    return ((scaled + POLICY_EPS / logits.shape[-1]) / (scaled.sum(-1, keepdim=True) + POLICY_EPS)).to(logits.dtype)


def diagonal(length: int, device: torch.device) -> torch.Tensor:
    """`[1, length, length]`, True where a query is its own key."""
    return torch.eye(length, dtype=torch.bool, device=device)[None]


@on_host
def key_bias(valid: torch.Tensor, dtype: torch.dtype, size: torch.Tensor | None = None) -> torch.Tensor | None:
    """What is added to the logits of keys: lowest for padding, else 0 or the logarithm of a token's size.

    Parameters
    ----------
    valid : torch.BoolTensor
        `[batch, keys]`, False for padding.
    dtype : torch.dtype
        Of the result.
    size : torch.Tensor or None
        `[batch, keys]`, for proportional attention.

    Returns
    -------
    torch.Tensor or None
        `[batch, 1, 1, keys]`; None where it would be zero.
    """
    sized = size is not None and bool((size > 1).any())
    if not sized and bool(valid.all()):
        return None
    bias = size.clamp_min(1).log().to(dtype) if sized else torch.zeros_like(valid, dtype=dtype)
    return bias.masked_fill(~valid, torch.finfo(dtype).min)[:, None, None]


def softmax_rows(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    valid: torch.Tensor,
    policy: torch.Tensor | None = None,
    itself: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of some queries, without the others.

    Parameters
    ----------
    logits : torch.Tensor
        `[batch, heads, queries, keys]`.
    bias : torch.Tensor or None
        Added to them, `[batch, 1, queries or 1, keys]`.
    valid : torch.BoolTensor
        `[batch, queries]`, False where a row has fewer queries than the longest.
    policy, itself : torch.Tensor or None
        How much each key counts; see :func:`policy_softmax`.

    Returns
    -------
    torch.Tensor
        `[batch, heads, queries, keys]` float32, zero where a query is not valid.
    """
    logits = logits.float()
    if bias is not None:
        logits = logits + bias.float()
    probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, itself)
    return probabilities.masked_fill(~valid[:, None, :, None], 0.0)


def fusion_attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor | None,
    rows: torch.Tensor,
    policy: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of some queries of an encoder's layer.

    Parameters
    ----------
    query, key : torch.Tensor
        `[batch, heads, queries, head_dim]` and `[batch, heads, keys, head_dim]`.
    bias : torch.Tensor or None
        Added to the logits, `[batch, 1, 1, keys]`.
    rows : torch.BoolTensor
        `[batch, queries]`, those that are wanted.
    policy : torch.Tensor or None
        `[batch, keys]`, how much each token of the one sequence counts as a key; see :func:`policy_softmax`.

    Returns
    -------
    torch.Tensor
        `[batch, heads, wanted, keys]` float32, zero where a row has fewer wanted queries than the longest.
    """
    index, valid = padded_indices(rows, "right")
    chosen = query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    itself = None if policy is None else index.unsqueeze(-1) == torch.arange(key.shape[2], device=key.device)
    logits = (chosen @ key.contiguous().transpose(-1, -2)).float() / math.sqrt(query.shape[-1])
    return softmax_rows(logits, bias, valid, policy, itself)


def cls_attention(block: Any, block_input: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Head-mean attention of the CLS query of a CLIP block.

    Parameters
    ----------
    block : nn.Module
        A CLIP encoder layer.
    block_input : torch.Tensor
        `[tiles, 1 + tokens, channels]`, CLS first.
    mask : torch.BoolTensor or None
        `[tiles, 1 + tokens]`, False for padding.

    Returns
    -------
    torch.Tensor
        `[tiles, tokens]` float32; the softmax includes the CLS key, which is then left out.
    """
    attention: Any = block.self_attn
    states = block.layer_norm1(block_input)
    tiles, length, _ = states.shape
    query = attention.q_proj(states[:, :1]).view(tiles, 1, attention.num_heads, -1).transpose(1, 2)
    keys = attention.k_proj(states).view(tiles, length, attention.num_heads, -1).transpose(1, 2)
    bias = None if mask is None else torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    bias = None if bias is None else bias[:, None, None]
    every = torch.ones(tiles, 1, dtype=torch.bool, device=states.device)
    logits = (query @ keys.transpose(2, 3)).float() * attention.scale
    return softmax_rows(logits, bias, every).mean(1)[:, 0, 1:]
