"""Attention in encoders of text and image: sdpa or eager, policies, and the rows of a few queries."""

import math

import torch
from torch import nn

from .fusion_tokens import FusionTokens
from .token_ops import right_padded_indices

POLICY_EPS = 1e-6


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    sdpa: bool = True,
    policy: torch.Tensor | None = None,
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
    policy : torch.Tensor or None
        `[batch, keys]`, how much each key counts; see :func:`policy_softmax`.

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
        probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy)
        probabilities = nn.functional.dropout(probabilities, dropout)
        context = probabilities @ value
    return context.transpose(1, 2).flatten(2), probabilities


def policy_softmax(logits: torch.Tensor, policy: torch.Tensor, queries: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax in which keys count as much as a policy says (DynamicViT, training). Every query sees itself.

    Parameters
    ----------
    logits : torch.Tensor
        `[batch, heads, queries, length]`.
    policy : torch.Tensor
        `[batch, length]`, from 0 to 1; gradients flow into it.
    queries : torch.LongTensor or None
        `[batch, queries]`, the tokens that ask; None: all.

    Returns
    -------
    torch.Tensor
        Probabilities in the shape and dtype of `logits`.
    """
    length = logits.shape[-1]
    keys = torch.arange(length, device=logits.device)
    itself = (keys.unsqueeze(-1) == keys)[None] if queries is None else queries.unsqueeze(-1) == keys
    weight = policy.float()[:, None, None, :]
    weight = weight + (1 - weight) * itself.unsqueeze(1)
    scaled = (logits.float() - logits.float().amax(-1, keepdim=True).detach()).exp() * weight
    return ((scaled + POLICY_EPS / length) / (scaled.sum(-1, keepdim=True) + POLICY_EPS)).to(logits.dtype)


def attention_bias(tokens: FusionTokens, dtype: torch.dtype, proportional: bool) -> torch.Tensor | None:
    """Additive mask `[batch, 1, 1, length]`: lowest for padding, else 0 or the logarithm of the token's size.

    None where it would be zero.
    """
    sized = proportional and bool((tokens.size > 1).any())
    if not sized and bool(tokens.valid.all()):
        return None
    bias = tokens.size.clamp_min(1).log().to(dtype) if sized else torch.zeros_like(tokens.size, dtype=dtype)
    return bias.masked_fill(~tokens.valid, torch.finfo(dtype).min)[:, None, None]


def attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    rows: torch.Tensor,
    policy: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of some queries, without the others.

    Parameters
    ----------
    query, key : torch.Tensor
        `[batch, heads, length, head_dim]`.
    mask : torch.Tensor or None
        Additive, `[batch, 1, 1, length]`.
    rows : torch.BoolTensor
        `[batch, length]`, the queries.
    policy : torch.Tensor or None
        `[batch, length]`, how much each token counts as a key; see :func:`policy_softmax`.

    Returns
    -------
    torch.Tensor
        `[batch, heads, queries, length]` float32, zero where a row has fewer queries than the longest.
    """
    index, valid = right_padded_indices(rows)
    chosen = query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    logits = (chosen @ key.contiguous().transpose(-1, -2)).float() / math.sqrt(query.shape[-1])
    if mask is not None:
        logits = logits + mask.float()
    probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, index)
    return probabilities.masked_fill(~valid[:, None, :, None], 0.0)
