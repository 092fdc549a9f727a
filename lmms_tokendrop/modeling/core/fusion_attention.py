"""Attention in encoders of text and image: sdpa or eager, and policies."""

import math

import torch
from torch import nn

from ..ops.eager_parts import on_host

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
