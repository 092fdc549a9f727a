"""MustDrop's decoder at the speed of its published implementation (arXiv 2411.10803), as a baseline.

It is written from a description of what that implementation does: it scores by the full attention weights of a layer,
and from the first scored layer on every layer computes them, in decoding too, with a softmax over all queries and keys
and a mask that is made on the host and copied for each layer; tokens leave behind the MLP of their layer; positions are
counted anew after each drop; after prefill the caches of the layers that the method names shrink to what is left. Which
tokens stay is given, so that counts are those of the reduced model beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from lmms_tokendrop.bench.runners import ReducedRunner

NAME = "published"
"""What stands before the name of the reduced model that it is compared with."""


@dataclass
class Cache:
    """Rotated keys and values of each layer, `[batch, key_heads, entries, head_dim]`."""

    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def update(self, number: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of a layer with the new ones."""
        if number == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[number] = torch.cat([self.keys[number], key], dim=2)
            self.values[number] = torch.cat([self.values[number], value], dim=2)
        return self.keys[number], self.values[number]

    def copy(self) -> Cache:
        """Another with the same tensors."""
        return Cache(list(self.keys), list(self.values))


class PublishedDecoder:
    """Runs one request through the layers of a Llama.

    Parameters
    ----------
    decoder : LlamaModel
        With the weights.
    stages : Mapping[int, torch.LongTensor]
        By layer, `[kept]`, places of what stays in the sequence before.
    visual : torch.BoolTensor
        `[length]`, True for the image's tokens.
    compacted : Collection[int]
        Layers whose cache shrinks after prefill.
    positions : int
        Rotary positions that a table is made of.
    """

    def __init__(
        self,
        decoder: Any,
        stages: Mapping[int, torch.Tensor],
        visual: torch.Tensor,
        compacted: Collection[int],
        positions: int,
    ):
        self.decoder, self.stages, self.visual, self.compacted = decoder, stages, visual, compacted
        self.first = min(stages)
        states = decoder.embed_tokens.weight[:1, None]
        table = torch.arange(positions, device=states.device).unsqueeze(0)
        self.cosine, self.sine = decoder.rotary_emb(states, position_ids=table)

    def prefill(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, Cache]:
        """From embeddings `[1, length, channels]` to the last states `[1, left, channels]` and the cache."""
        cache, visual = Cache(), self.visual
        for number, layer in enumerate(self.decoder.layers):
            positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
            hidden_states, weights = self._layer(number, layer, hidden_states, positions, cache)
            if number in self.stages:
                score(weights, visual)
                index = self.stages[number]
                hidden_states, visual = hidden_states.index_select(1, index), visual[index]
        self._compact(cache)
        return self.decoder.norm(hidden_states), cache

    def step(self, hidden_states: torch.Tensor, cache: Cache) -> torch.Tensor:
        """The last state behind one more embedding `[1, 1, channels]`; each layer's position is what it holds."""
        for number, layer in enumerate(self.decoder.layers):
            position = torch.tensor([cache.keys[number].shape[2]]).to(hidden_states.device)
            hidden_states, _ = self._layer(number, layer, hidden_states, position, cache)
        return self.decoder.norm(hidden_states)

    def _layer(self, number: int, layer: Any, hidden_states: torch.Tensor, positions: torch.Tensor, cache: Cache):
        """States behind a layer, and its attention weights `[1, heads, queries, keys]` from the first scored one on."""
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden_states)
        shape = (*normed.shape[:2], -1, attention.head_dim)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (project(normed).view(shape).transpose(1, 2) for project in projections)
        query, key = apply_rotary_pos_emb(query, key, self.cosine[:, positions], self.sine[:, positions])
        key, value = cache.update(number, key, value)
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        if number < self.first:
            causal = query.shape[2] > 1
            weights, attended = None, scaled_dot_product_attention(query, key, value, is_causal=causal)
        else:
            weights = (query @ key.transpose(2, 3) * attention.scaling + mask(query, key)).softmax(-1)
            attended = weights @ value
        hidden_states = hidden_states + attention.o_proj(attended.transpose(1, 2).flatten(2))
        return hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states)), weights

    def _compact(self, cache: Cache) -> None:
        """Shrink caches to what the last drop left."""
        index: torch.Tensor | None = None
        for number in reversed(range(len(cache.keys))):
            if number in self.stages:
                index = self.stages[number] if index is None else self.stages[number][index]
            if index is not None and number in self.compacted:
                cache.keys[number] = cache.keys[number].index_select(2, index)
                cache.values[number] = cache.values[number].index_select(2, index)


def mask(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """What is added to the logits, `[queries, keys]`: made on the host and copied."""
    queries, keys = query.shape[2], key.shape[2]
    visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return torch.zeros(queries, keys, dtype=query.dtype).masked_fill_(~visible, float("-inf")).to(query.device)


def score(weights: torch.Tensor, visual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What all text behind the image gives each visual token, and the most that one text token gives it, `[visual]`."""
    last = int(visual.nonzero().max())
    rows = weights[0, :, last + 1 :].mean(0)[:, visual]
    return rows.sum(0), rows.amax(0)


class PublishedRunner(ReducedRunner):
    """The baseline beside a reduced model, behind the same vision tower, with its counts."""

    def __init__(self, reduced: ReducedRunner):
        super().__init__(f"{NAME} {reduced.name}", reduced.model, reduced.prompt, reduced.new_tokens)
        first, stages = _left(reduced.prefilled[1].records)
        self.states = reduced.embeddings[:, first]
        positions = len(first) + self.new_tokens + 1
        compacted = {stage.layer for stage in self.reducer.stages_at("decode")}
        visual = reduced.prompt.visual[0, first]
        self.published = PublishedDecoder(self.decoder, stages, visual, compacted, positions)

    def prefill(self) -> tuple[torch.Tensor, Any]:
        """Logits of the next token, and the cache."""
        hidden_states, cache = self.published.prefill(self.states)
        return self.head(hidden_states[:, -1:]), cache

    def step(self, token: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Logits behind a token, and the cache with it."""
        return self.head(self.published.step(self.decoder.embed_tokens(token), cache)), cache


def _left(records: Sequence[Any]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Places in the prompt of what the first layer receives, and what each stage behind a layer left."""
    before, *after = records
    stages, known = {}, before.index[0]
    for record in after:
        stages[int(record.name.rpartition(" ")[2])] = torch.searchsorted(known, record.index[0])
        known = record.index[0]
    return before.index[0], stages
