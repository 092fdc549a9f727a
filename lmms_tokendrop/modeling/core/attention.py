"""Attention in encoders: sdpa or eager, policies, and the probabilities of a few queries beside it."""

import math
from typing import Any

import torch
from torch import nn

from ..ops.eager_parts import on_host
from ..ops.token_ops import padded_indices

POLICY_EPS = 1e-6


def attend(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None = None,
    output_attentions: bool = False,
    policy: torch.Tensor | None = None,
    itself: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend to every key.

    Parameters
    ----------
    attention : nn.Module
        With a `config`, whose attention implementation runs: sdpa or eager, and a `dropout`.
    query, key, value : torch.Tensor
        `[batch, heads, queries, head_dim]`, the others `[batch, heads, keys, head_dim]`.
    bias : torch.Tensor or None
        Added to logits, `[batch, 1, 1, keys]`.
    output_attentions : bool
        Whether to return probabilities, which sdpa does not give.
    policy, itself : torch.Tensor or None
        How much each key counts; see :func:`policy_softmax`.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor or None]
        Context `[batch, queries, heads * head_dim]`, and probabilities `[batch, heads, queries, keys]` without sdpa.
    """
    dropout = getattr(attention.dropout, "p", attention.dropout) if attention.training else 0.0
    probabilities = None
    if attention.config._attn_implementation == "sdpa" and not output_attentions and policy is None:
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    else:
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if bias is not None:
            logits = logits + bias
        probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, itself)
        probabilities = nn.functional.dropout(probabilities, dropout)
        context = probabilities @ value
    return context.transpose(1, 2).flatten(2), probabilities


def attend_to(
    attention: Any,
    hidden_states: torch.Tensor,
    other: torch.Tensor,
    keys: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
    output_attentions: bool = False,
    itself: torch.Tensor | None = None,
) -> tuple:
    """Attend to the own sequence or to another one, with the weights of a stock module.

    Parameters
    ----------
    attention : nn.Module
        With the layers `query`, `key` and `value`, and what :func:`attend` reads.
    hidden_states : torch.Tensor
        `[batch, queries, channels]`.
    other : torch.Tensor
        `[batch, keys, channels]`, what is attended to.
    keys : tuple[torch.Tensor or None, torch.Tensor or None]
        What is added to the logits of keys, `[batch, 1, 1, keys]`, and the policy, how much each key counts.
    output_attentions : bool
        Whether to return probabilities.
    itself : torch.Tensor or None
        With a policy, keys that count in full; see :func:`policy_softmax`. In the own sequence, a query's own.

    Returns
    -------
    tuple
        Context `[batch, queries, channels]`, probabilities `[batch, heads, queries, keys]` or None, queries
        `[batch, heads, queries, head_dim]` and keys `[batch, heads, keys, head_dim]`.
    """
    bias, policy = keys
    if policy is not None and other is hidden_states:
        itself = torch.eye(other.shape[1], dtype=torch.bool, device=other.device)[None]
    heads = attention.num_attention_heads
    (query,) = heads_of(hidden_states, heads, attention.query)
    key, value = heads_of(other, heads, attention.key, attention.value)
    return *attend(attention, query, key, value, bias, output_attentions, policy, itself), query, key


def heads_of(states: torch.Tensor, heads: int, *layers: nn.Module) -> list[torch.Tensor]:
    """What each layer makes of states `[batch, length, channels]`, `[batch, heads, length, head_dim]`."""
    return [layer(states).unflatten(-1, (heads, -1)).transpose(1, 2) for layer in layers]


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


def cls_attention(block: Any, block_input: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Head-mean attention of the CLS query of a CLIP block.

    Parameters
    ----------
    block : nn.Module
        A CLIP encoder layer.
    block_input : torch.Tensor
        `[tiles, 1 + tokens, channels]`, CLS first.
    mask : torch.BoolTensor
        `[tiles, 1 + tokens]`, False for padding.

    Returns
    -------
    torch.Tensor
        `[tiles, tokens]` float32; the softmax includes the CLS key, which is then left out.
    """
    attention: Any = block.self_attn
    states = block.layer_norm1(block_input)
    (query,) = heads_of(states[:, :1], attention.num_heads, attention.q_proj)
    (keys,) = heads_of(states, attention.num_heads, attention.k_proj)
    logits = (query @ keys.transpose(2, 3)).float() * attention.scale
    return softmax_rows(logits, key_bias(mask, torch.float32), mask[:, :1]).mean(1)[:, 0, 1:]
