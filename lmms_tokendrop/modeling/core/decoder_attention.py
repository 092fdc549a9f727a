"""Attention of a few queries of a decoder's layer, computed beside whatever backend runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..ops.token_ops import padded_indices, take_tokens
from .staged_cache import StagedLayer


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
    batch, length = layer_input.shape[:2]
    device = keys.device
    rows_here = rows.to(device)
    index, valid = (torch.zeros_like(rows_here, dtype=torch.long), rows_here)
    if length > 1:
        index, valid = padded_indices(rows_here, "left")
    queries = attention.q_proj(layer.input_layernorm(take_tokens(layer_input.to(device), index)))
    queries = queries.view(batch, index.shape[1], -1, attention.head_dim).transpose(1, 2)
    cosine, sine = (take_tokens(part.to(device).expand(batch, -1, -1), index) for part in position_embeddings)
    queries, _ = apply_rotary_pos_emb(queries, queries[:, :0], cosine, sine)  # and no keys

    entries = keys.shape[2]
    place = torch.arange(entries, device=keys.device)
    visible = place <= (index + entries - length).unsqueeze(-1)
    if key_mask is not None:
        visible = visible & key_mask.to(device).unsqueeze(1)
    grouped = queries.reshape(batch, keys.shape[1], -1, queries.shape[-1])
    logits = (grouped @ keys.transpose(2, 3)).view(*queries.shape[:3], entries) * attention.scaling
    probabilities = logits.masked_fill(~visible.unsqueeze(1), float("-inf")).float().softmax(-1)
    return probabilities.masked_fill(~valid[:, None, :, None], 0.0).to(rows.device)


def rotated_keys(layer: Any, layer_input: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Keys `[batch, key_heads, length, head_dim]` that a layer makes of `layer_input [batch, length, channels]`."""
    attention: Any = layer.self_attn
    device = next(attention.k_proj.parameters()).device
    keys = attention.k_proj(layer.input_layernorm(layer_input.to(device)))
    keys = keys.view(*layer_input.shape[:2], -1, attention.head_dim).transpose(1, 2)
    cosine, sine = (part.to(device) for part in positions)
    return apply_rotary_pos_emb(keys[:, :0], keys, cosine, sine)[1]  # of no queries


@dataclass(frozen=True)
class RowScores:
    """Attention rows of the layer just run.

    Attributes
    ----------
    layer : nn.Module
        The layer.
    layer_input : torch.Tensor
        `[batch, length, channels]`.
    position_embeddings : tuple[torch.Tensor, torch.Tensor]
        Cosine and sine, `[batch or 1, length, head_dim]`.
    held : StagedLayer
        Its cache.
    """

    layer: Any
    layer_input: torch.Tensor
    position_embeddings: tuple[torch.Tensor, torch.Tensor]
    held: StagedLayer

    def over_cache(self, rows: torch.Tensor) -> torch.Tensor:
        """See :func:`decoder_attention_rows`."""
        return decoder_attention_rows(
            self.layer, self.layer_input, self.position_embeddings, self.held.keys, self.held.entries.mask, rows
        )

    def over_chunk(self, rows: torch.Tensor) -> torch.Tensor:
        """The same, for the keys of the layer's own input only."""
        return self.over_cache(rows)[..., -self.layer_input.shape[1] :]

    def keys_by_head(self) -> torch.Tensor:
        """Rotated keys of the layer's own input, `[batch, key_heads, length, head_dim]`."""
        return self.held.keys[:, :, -self.layer_input.shape[1] :]

    def keys(self) -> torch.Tensor:
        """Their mean over heads, `[batch, length, head_dim]`."""
        return self.keys_by_head().mean(1)

    def providers(self) -> dict[str, Callable]:
        """What a method may ask for."""
        return {"attention_rows": self.over_chunk, "keys": self.keys, "keys_by_head": self.keys_by_head}
