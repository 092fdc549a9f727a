"""One chunk on its way through the layers of a staged decoder."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..ops.eager_parts import HostCall, of_any_length, on_host
from .cache_selection import drop_from_cache
from .decoder_attention import RowScores, rotated_keys
from .decoder_inputs import Chunk
from .decoder_options import setting
from .staged_cache import StagedCache, StagedLayer
from .staged_prefill import BEFORE_FIRST_LAYER, StagedPrefill
from .transformers_compat import cache_argument
from .visual_tokens import DecoderTokens, Entries


@dataclass(frozen=True)
class LayerInputs:
    """What a layer reads beside its states; the same for neighbours that hold the same.

    Attributes
    ----------
    before : Entries or None
        What the cache layer held.
    sequence : DecoderTokens
        The chunk.
    entries : Entries
        Both, in this order.
    mask : torch.Tensor or None
        As the attention takes it.
    position_embeddings : tuple[torch.Tensor, torch.Tensor]
        Cosine and sine, `[batch or 1, length, head_dim]`.
    """

    before: Entries | None
    sequence: DecoderTokens
    entries: Entries
    mask: torch.Tensor | None
    position_embeddings: tuple[torch.Tensor, torch.Tensor]


class DecoderRun:
    """What is known of a chunk between layers, and what is decided about it there.

    Parameters
    ----------
    decoder : nn.Module
        The staged decoder.
    chunk : Chunk
        What goes in.
    cache : StagedCache
        The request so far.
    compiled : bool
        Whether compiled layers run. What they read is of one kind then, whatever stays: a mask wherever rows may need
        padding, positions for each row, and lengths that a graph doesn't fix.

    Attributes
    ----------
    states : torch.Tensor
        `[batch, length, channels]`, what the first layer receives.
    alike : bool
        Whether all layers hold and receive the same, as they do if the method acts in no layer.
    any_length : bool
        Whether the lengths of what compiled layers read depend on values.
    points : dict[int, str]
        Layers in which tokens of the prompt leave, and where there.
    sequence : DecoderTokens
        The chunk, where it is.
    keys : list[torch.LongTensor]
        `[batch, keys]` for each layer that ran, place of each key that its attention read in the unreduced sequence; -1
        for padding.
    """

    @on_host
    def __init__(self, decoder: Any, chunk: Chunk, cache: StagedCache, compiled: bool):
        self.decoder, self.cache, request, self.compiled = decoder, cache, chunk.request, compiled
        self.layers: list[StagedLayer] = cache.layers[: decoder.config.num_hidden_layers]
        self.sequence, self.states = chunk.enter(cache), chunk.states
        self.reducer = None if request is None else request.reducer
        self.prefill: StagedPrefill | None = None
        if request is not None and request.tokens is not None and bool(self.sequence.tokens.visual.any()):
            self.prefill = StagedPrefill(request, self.sequence, cache, decoder.training and torch.is_grad_enabled())
            if BEFORE_FIRST_LAYER in self.prefill.stages:
                self.sequence, self.states = self.prefill.leave(BEFORE_FIRST_LAYER, self.sequence, self.states)
        self.generates = self.prefill is None and bool(cache.received) and self.sequence.place.shape[1] == 1
        stages = () if self.reducer is None else self.reducer.stages_at("decoder", "decode")
        self.dropping = [stage for stage in stages if self.generates and stage.point == "after_token"]
        self.watched = {stage.layer for stage in self.dropping}
        leaving = [stage for stage in stages if self.prefill is not None and stage.place == "decoder"]
        self.points = {stage.layer: stage.point for stage in leaving}
        self.alike = not stages and all(held.entries is self.layers[0].entries for held in self.layers)
        reduced = self.reducer is not None and bool(self.reducer.stages_at("vision", "features"))
        self.any_length = compiled and (reduced or not self.alike)
        self.inputs: LayerInputs | None = None
        self.keys: list[torch.Tensor] = []

    @on_host
    def before_layer(self, number: int, hidden_states: torch.Tensor) -> dict[str, Any]:
        """Note what a layer will hold; returns its arguments beside its states `[batch, length, channels]`."""
        held = self.layers[number]
        self.inputs = known = self._inputs(number, hidden_states)
        held.extend(known.entries)
        self.keys.append(known.entries.place)
        if self.prefill is not None:
            self.prefill.receive(self.sequence)
        self.entered = hidden_states
        if self.any_length:
            of_any_length(1, hidden_states)
            of_any_length(2, held.keys, held.values)
        return {
            "attention_mask": known.mask,
            "position_embeddings": known.position_embeddings,
            "use_cache": True,
            "after_attention": HostCall(self.leave, number) if self.points.get(number) == "before_ffn" else None,
            **cache_argument(held),
        }

    @on_host
    def after_layer(self, number: int, hidden_states: torch.Tensor) -> torch.Tensor:
        """Run the stage behind a layer, if there is one; returns the states of what stays."""
        if number in self.watched:
            held = self.layers[number]
            attended = self._rows(number).over_cache(self.sequence.valid).mean(1).squeeze(1)
            held.attention = attended if held.attention is None else held.attention + attended
        if self.points.get(number) != "after_block":
            return hidden_states
        providers = {"normed_states": partial(self.decoder.norm, hidden_states)}
        if number + 1 < len(self.layers):
            providers["next_attention_rows"] = partial(self._next_rows, number + 1, hidden_states)
        return self.leave(number, hidden_states, **providers)

    def leave(self, number: int, hidden_states: torch.Tensor, **providers) -> torch.Tensor:
        """Run the stage of a layer; returns the states of what stays."""
        providers |= self._rows(number).providers()
        self.sequence, hidden_states = self.prefill.leave(number, self.sequence, hidden_states, **providers)
        of_any_length(1, hidden_states)
        return hidden_states

    def _rows(self, number: int) -> RowScores:
        """Attention rows of the layer just run."""
        held, positions = self.layers[number], self.inputs.position_embeddings
        return RowScores(self.decoder.layers[number], self.entered, positions, held.keys, held.entries.mask)

    def _next_rows(self, number: int, hidden_states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Attention rows, over the chunk, of a layer that has not run, given the states that it would receive."""
        layer, held, known = self.decoder.layers[number], self.layers[number], self._inputs(number, hidden_states)
        keys = rotated_keys(layer, hidden_states, known.position_embeddings)
        keys = torch.cat([held.keys, keys], dim=2) if held.is_initialized else keys
        scores = RowScores(layer, hidden_states, known.position_embeddings, keys, known.entries.mask)
        return scores.over_chunk(rows)

    @on_host
    def before_layers(self) -> list[dict[str, Any]]:
        """Arguments of all layers, where they are alike."""
        return [self.before_layer(number, self.states) for number in range(len(self.layers))]

    @on_host
    def finish(self, last_hidden_state: torch.Tensor) -> BaseModelOutputWithPast:
        """The chunk's output, with its accounts handed over and the cache shrunk as the method says."""
        if self.prefill is not None:
            self.prefill.finish(self.sequence)
            self.cache.generated = 0
        if self.generates:
            self.cache.generated += 1
            drop_from_cache(self.cache, self.reducer, self.dropping)
        if self.any_length:
            of_any_length(1, last_hidden_state)
        return BaseModelOutputWithPast(last_hidden_state=last_hidden_state)

    def _inputs(self, number: int, hidden_states: torch.Tensor) -> LayerInputs:
        """What a layer reads; that of the layer before, if it holds and receives the same."""
        sequence, before, known = self.sequence, self.layers[number].entries, self.inputs
        if known is not None and before is known.before and sequence is known.sequence:
            return known
        chunk = Entries(sequence.place, sequence.padded)
        entries = chunk if before is None else before.append(chunk)
        rows = len(entries.place)
        always_masked = self.compiled and rows > 1
        mask = create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=hidden_states,
            attention_mask=entries.valid if always_masked else entries.mask,
            layer_idx=number,
            allow_is_causal_skip=not always_masked,
            **cache_argument(self.cache),
        )
        position_ids = sequence.position_ids.expand(rows, -1) if self.compiled else sequence.position_ids
        if self.reducer is not None and setting(self.reducer.options, "position_mode") == "compact":
            position_ids = (entries.valid.cumsum(-1)[:, -sequence.place.shape[1] :] - 1).clamp_min(0)
        positions = self.decoder.rotary_emb(hidden_states, position_ids=position_ids)
        if self.any_length:
            of_any_length(1, *positions)
            of_any_length(2, mask)
            of_any_length(3, mask)
        return LayerInputs(before, sequence, entries, mask, positions)
