"""Attention of a few queries of a decoder's layer, computed beside whatever backend runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..ops.token_ops import padded_indices, take_tokens
from .attention import softmax_rows


@dataclass(frozen=True)
class RowScores:
    """Attention rows of a Llama-like layer.

    Attributes
    ----------
    layer : nn.Module
        A decoder layer with `input_layernorm` and `self_attn`.
    layer_input : torch.Tensor
        `[batch, length, channels]`, what the layer received.
    position_embeddings : tuple[torch.Tensor, torch.Tensor]
        Cosine and sine, `[batch or 1, length, head_dim]`.
    cached : torch.Tensor
        Keys in its cache `[batch, key_heads, entries, head_dim]`, rotated; the last `length` are of its own input.
    key_mask : torch.BoolTensor or None
        `[batch, entries]`, False for padding.
    """

    layer: Any
    layer_input: torch.Tensor
    position_embeddings: tuple[torch.Tensor, torch.Tensor]
    cached: torch.Tensor
    key_mask: torch.Tensor | None

    def over_cache(self, rows: torch.Tensor) -> torch.Tensor:
        """Softmax attention of some queries over all keys in the cache.

        Parameters
        ----------
        rows : torch.BoolTensor
            `[batch, length]`, the queries.

        Returns
        -------
        torch.Tensor
            `[batch, heads, queries, entries]` float32, zero where a row has fewer queries than the longest.
        """
        attention, keys, device = self.layer.self_attn, self.cached, self.cached.device
        batch, length = self.layer_input.shape[:2]
        rows_here = rows.to(device)
        index, valid = (torch.zeros_like(rows_here, dtype=torch.long), rows_here)
        if length > 1:
            index, valid = padded_indices(rows_here, "left")
        positions = (part.to(device).expand(batch, -1, -1) for part in self.position_embeddings)
        cosine, sine = (take_tokens(part, index) for part in positions)
        states = take_tokens(self.layer_input.to(device), index)
        queries = _rotated(self.layer, attention.q_proj, states, cosine, sine)

        entries = keys.shape[2]
        visible = torch.arange(entries, device=device) <= (index + entries - length).unsqueeze(-1)
        if self.key_mask is not None:
            visible = visible & self.key_mask.to(device).unsqueeze(1)
        grouped = queries.reshape(batch, keys.shape[1], -1, queries.shape[-1])
        logits = (grouped @ keys.transpose(2, 3)).view(*queries.shape[:3], entries) * attention.scaling
        return softmax_rows(logits.masked_fill(~visible.unsqueeze(1), float("-inf")), None, valid).to(rows.device)

    def over_chunk(self, rows: torch.Tensor) -> torch.Tensor:
        """The same, for the keys of the layer's own input only."""
        return self.over_cache(rows)[..., -self.layer_input.shape[1] :]

    def keys_by_head(self) -> torch.Tensor:
        """Rotated keys of the layer's own input, `[batch, key_heads, length, head_dim]`."""
        return self.cached[:, :, -self.layer_input.shape[1] :]

    def keys(self) -> torch.Tensor:
        """Their mean over heads, `[batch, length, head_dim]`."""
        return self.keys_by_head().mean(1)

    def providers(self) -> dict[str, Callable]:
        """What a method may ask for."""
        return {"attention_rows": self.over_chunk, "keys": self.keys, "keys_by_head": self.keys_by_head}


def rotated_keys(layer: Any, layer_input: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Keys `[batch, key_heads, length, head_dim]` that a layer makes of `layer_input [batch, length, channels]`."""
    project = layer.self_attn.k_proj
    device = next(project.parameters()).device
    return _rotated(layer, project, layer_input.to(device), *(part.to(device) for part in positions))


def _rotated(layer: Any, project: Any, states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    heads = project(layer.input_layernorm(states))
    heads = heads.view(*states.shape[:2], -1, layer.self_attn.head_dim).transpose(1, 2)
    return apply_rotary_pos_emb(heads, heads[:, :0], cosine, sine)[0]  # beside nothing
