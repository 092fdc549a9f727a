"""Attention probabilities of a few queries, computed beside whatever attention backend runs the layer."""

from typing import Any

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from .token_ops import left_padded_indices


def decoder_attention_rows(
    layer: Any,
    layer_input: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    key_mask: torch.Tensor | None,
    rows: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
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
    tuple[torch.Tensor, torch.BoolTensor]
        float32 probabilities `[batch, heads, queries, entries]`, and `[batch, queries]`: False where a row has
        fewer queries than the longest (its probabilities are zero there).
    """
    attention: Any = layer.self_attn
    batch, length, channels = layer_input.shape
    device = keys.device
    rows_here = rows.to(device)
    index, valid = (torch.zeros_like(rows_here, dtype=torch.long), rows_here)
    if length > 1:
        index, valid = left_padded_indices(rows_here)
    layer_input = layer_input.to(device)
    queries = layer_input.gather(1, index.unsqueeze(-1).expand(-1, -1, channels))
    queries = attention.q_proj(layer.input_layernorm(queries))
    queries = queries.view(batch, index.shape[1], -1, attention.head_dim).transpose(1, 2)
    cosine, sine = (
        part.to(device).expand(batch, -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, part.shape[-1]))
        for part in position_embeddings
    )
    queries, _ = apply_rotary_pos_emb(queries, queries, cosine, sine)

    key_heads, entries = keys.shape[1], keys.shape[2]
    grouped = queries.reshape(batch, key_heads, -1, queries.shape[-1])
    logits = (grouped @ keys.transpose(2, 3)).view(batch, queries.shape[1], index.shape[1], entries) * attention.scaling
    place = torch.arange(entries, device=keys.device)
    visible = place <= (index + entries - length).unsqueeze(-1)
    if key_mask is not None:
        visible = visible & key_mask.to(device).unsqueeze(1)
    logits = logits.float().masked_fill(~visible.unsqueeze(1), float("-inf"))
    probabilities = logits.softmax(-1)
    probabilities = probabilities.masked_fill(~valid[:, None, :, None], 0.0)
    return probabilities.to(rows.device), valid.to(rows.device)


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
    logits = (query @ keys.transpose(2, 3)).float() * attention.scale
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None], float("-inf"))
    return logits.softmax(-1).mean(1)[:, 0, 1:]
