"""Attention probabilities of a few queries, computed beside whatever attention backend runs the layer."""

from typing import Any

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..ops.selecting import padded_indices
from .fusion_attention import policy_softmax


def softmax_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    bias: torch.Tensor | None,
    valid: torch.Tensor,
    policy: torch.Tensor | None = None,
    itself: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of some queries, without the others.

    Parameters
    ----------
    query, key : torch.Tensor
        `[batch, heads, queries, head_dim]` and `[batch, key_heads, keys, head_dim]`.
    scaling : float
        Factor of the logits.
    bias : torch.Tensor or None
        Added to the logits, `[batch, 1, queries or 1, keys]`.
    valid : torch.BoolTensor
        `[batch, queries]`, False where a row has fewer queries than the longest.
    policy, itself : torch.Tensor or None
        How much each key counts; see :func:`policy_softmax`.

    Returns
    -------
    torch.Tensor
        `[batch, heads, queries, keys]` float32, zero where a query is not valid.
    """
    batch, heads, queries, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    logits = ((grouped @ key.transpose(2, 3)).view(batch, heads, queries, key.shape[2]) * scaling).float()
    if bias is not None:
        logits = logits + bias.float()
    probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, itself)
    return probabilities.masked_fill(~valid[:, None, :, None], 0.0)


def decoder_attention_rows(
    layer: Any,
    layer_input: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    key_mask: torch.Tensor | None,
    rows: torch.Tensor,
) -> torch.Tensor:
    """Softmax attention of some queries of a Llama-like layer over all keys in its cache.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer with `input_layernorm` and `self_attn`.
    layer_input : torch.Tensor
        `[batch, length, channels]`, what the layer received.
    position_embeddings : tuple[torch.Tensor, torch.Tensor]
        Cosine and sine, `[batch or 1, length, head_dim]`.
    keys : torch.Tensor
        `[batch, key_heads, entries, head_dim]`, rotated; the last `length` entries are the layer's own input.
    key_mask : torch.BoolTensor or None
        `[batch, entries]`, False for padding.
    rows : torch.BoolTensor
        `[batch, length]`, the queries.

    Returns
    -------
    torch.Tensor
        `[batch, heads, queries, entries]` float32, zero where a row has fewer queries than the longest.
    """
    attention: Any = layer.self_attn
    batch, length, channels = layer_input.shape
    device = keys.device
    rows_here = rows.to(device)
    index, valid = (torch.zeros_like(rows_here, dtype=torch.long), rows_here)
    if length > 1:
        index, valid = padded_indices(rows_here, "left")
    layer_input = layer_input.to(device)
    queries = layer_input.gather(1, index.unsqueeze(-1).expand(-1, -1, channels))
    queries = attention.q_proj(layer.input_layernorm(queries))
    queries = queries.view(batch, index.shape[1], -1, attention.head_dim).transpose(1, 2)
    cosine, sine = (
        part.to(device).expand(batch, -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, part.shape[-1]))
        for part in position_embeddings
    )
    queries, _ = apply_rotary_pos_emb(queries, queries, cosine, sine)

    entries = keys.shape[2]
    place = torch.arange(entries, device=keys.device)
    visible = place <= (index + entries - length).unsqueeze(-1)
    if key_mask is not None:
        visible = visible & key_mask.to(device).unsqueeze(1)
    bias = torch.zeros(visible.shape, device=device).masked_fill(~visible, float("-inf")).unsqueeze(1)
    return softmax_rows(queries, keys, attention.scaling, bias, valid).to(rows.device)


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
    return softmax_rows(chosen, key.contiguous(), query.shape[-1] ** -0.5, bias, valid, policy, itself)


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
    return softmax_rows(query, keys, attention.scale, bias, every).mean(1)[:, 0, 1:]
