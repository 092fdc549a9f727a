"""The layer loop of Llama-like decoders, with stages at which visual tokens leave."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import LlamaModel, MistralModel, Qwen2Model
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_rows import decoder_attention_rows
from .cache_policies import accumulate_attention, evict_least_attended
from .chunk_outputs import join_attentions, join_states
from .model_limits import warn_of_long_sequence
from .reduction_request import ReductionRequest
from .staged_cache import Entries, StagedCache, checked_cache
from .staged_prefill import BEFORE_FIRST_LAYER, StagedPrefill
from .stages import Sequence
from .transformers_compat import cache_argument, takes_cache
from .visual_tokens import VisualTokens


@dataclass
class StagedDecoderOutput(BaseModelOutputWithPast):
    """The decoder's output.

    Attributes
    ----------
    index : torch.LongTensor
        `[batch, kept]`, place of each state's token in the unreduced sequence; -1 for padding.
    """

    index: torch.Tensor | None = None


@dataclass
class _ChunkOutput(StagedDecoderOutput):
    """Of a chunk; `keys [batch, keys]` per layer are the places of what its attention read."""

    keys: list | None = None


class StagedDecoderMixin:
    """Replaces the forward pass of a Llama-like decoder; parameters stay those of the stock class."""

    config: Any
    training: bool
    embed_tokens: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    rotary_emb: nn.Module
    layer_class: type
    post_init: Callable[[], None]

    def __init__(self, config):
        super().__init__(config)  # type: ignore[call-arg]
        self._no_split_modules = [self.layer_class.__name__]
        self.layers = nn.ModuleList([self.layer_class(config, number) for number in range(config.num_hidden_layers)])
        self.post_init()

    @takes_cache
    @merge_with_config_defaults
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: StagedCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        reduction: ReductionRequest | None = None,
        **kwargs,
    ) -> StagedDecoderOutput:
        """Run the decoder.

        Parameters
        ----------
        input_ids : torch.LongTensor, optional
            `[batch, length]`; exactly one of `input_ids` and `inputs_embeds` is given.
        attention_mask : torch.Tensor, optional
            `[batch, past + length]`, 0 for padding.
        position_ids : torch.LongTensor, optional
            `[batch or 1, length]`, rotary positions in the unreduced sequence.
        cache : StagedCache, optional
            The request so far.
        inputs_embeds : torch.FloatTensor, optional
            `[batch, length, channels]`.
        use_cache : bool, optional
            Whether to return the cache.
        reduction : ReductionRequest, optional
            What to reduce; None: nothing.

        Returns
        -------
        StagedDecoderOutput
            `last_hidden_state [batch, length - dropped, channels]`; padding stays on the left. `hidden_states` and
            `attentions` have the stock number of entries; see :func:`join_states` and :func:`join_attentions`.

        Raises
        ------
        ValueError
            If the cache is of another class, the mask has another shape or pads on the right, or an active sliding
            window is shorter than the sequence.
        RuntimeError
            If tokens would leave in training, or gradient checkpointing keeps from the cache what is read from it.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = StagedCache(self.config) if cache is None else checked_cache(cache)
        past, length = cache.seen, inputs_embeds.shape[1]
        _check_mask(attention_mask, past, length)
        _check_sliding_window(self.config, past + length)
        warn_of_long_sequence(past + length, getattr(self.config, "max_position_embeddings", None))
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=inputs_embeds.device).unsqueeze(0)

        prompt = length if reduction is None else reduction.new_prompt_tokens(past, length)
        cuts = [0, prompt, length] if prompt < length else [0, length]
        if past or len(cuts) > 2 or (reduction is not None and reduction.reads_cache):
            self._check_keeps_cache()
        chunks = []
        for start, stop in pairwise(cuts):
            part = None if reduction is None else reduction.chunk(start, stop)
            mask = None if attention_mask is None else attention_mask[:, past + start : past + stop].bool()
            sequence = _enter(cache, inputs_embeds.shape[0], position_ids[:, start:stop], mask, part)
            chunks.append(self._run(sequence, inputs_embeds[:, start:stop], cache, part, **kwargs))
        output = chunks[0] if len(chunks) == 1 else _joined(*chunks)
        return StagedDecoderOutput(
            last_hidden_state=output.last_hidden_state,
            **cache_argument(cache if use_cache else None),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            index=output.index,
        )

    def _check_keeps_cache(self) -> None:
        checkpoints = any(getattr(layer, "gradient_checkpointing", False) for layer in self.layers)
        if checkpoints and self.training and torch.is_grad_enabled():
            raise RuntimeError(
                "gradient checkpointing fills no cache, and a reduction inside the decoder, a prompt_length or a "
                "continued cache reads it; call model.gradient_checkpointing_disable() or model.eval(), or train with "
                '{"method": "none"} on whole inputs'
            )

    @capture_outputs
    def _run(
        self, sequence: Sequence, hidden_states, cache: StagedCache, request: ReductionRequest | None, **kwargs
    ) -> _ChunkOutput:
        """Run a chunk through layers and stages."""
        options: Any = None if request is None else request.reducer.config
        prefill = watch = None
        if request is not None and request.tokens is not None and bool(sequence.tokens.visual.any()):
            training = self.training and torch.is_grad_enabled()
            prefill = StagedPrefill(request, sequence, cache, self.config.num_hidden_layers, training)
            if prefill.acts_after(BEFORE_FIRST_LAYER):
                sequence, hidden_states = prefill.leave(BEFORE_FIRST_LAYER, sequence, hidden_states)
        generates = prefill is None and cache.received and sequence.index.shape[1] == 1
        watch = generates and options is not None and options.decode_interval is not None
        compact_positions = options is not None and options.position_mode == "compact"

        prepared: dict[tuple[int, int], tuple] = {}
        keys = []
        for number, layer in enumerate(self.layers[: self.config.num_hidden_layers]):
            held = cache.layers[number]
            place = (id(held.entries), id(sequence))
            if place not in prepared:
                inputs = self._prepare(number, sequence, hidden_states, cache, compact_positions)
                prepared[place] = (held.entries, sequence, *inputs)
            entries, mask, position_embeddings = prepared[place][2:]
            keys.append(entries.index)
            if prefill is not None:
                prefill.receive(sequence)
            rows = _RowScores(layer, hidden_states, position_embeddings, held)
            leaving = None
            if prefill is not None and prefill.acts_after(number):
                leaving = _Leaving(prefill, number, sequence, held, entries, rows)
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                position_embeddings=position_embeddings,
                use_cache=True,
                **cache_argument(cache),
                after_attention=leaving,
                **kwargs,
            )
            if leaving is None:
                held.extend(entries)
            else:
                sequence = leaving.sequence
            if watch:
                accumulate_attention(held, rows.over_cache(sequence.valid)[0].mean(1).squeeze(1))
            if prefill is not None:
                prefill.left(sequence)
        if prefill is not None:
            prefill.finish(sequence)
            cache.generated = 0
        if generates:
            cache.generated += 1
            if watch and cache.generated % options.decode_interval == 0:
                evict_least_attended(cache, options.decode_drop_ratio, options.decode_floor)
        return _ChunkOutput(last_hidden_state=self.norm(hidden_states), index=sequence.index, keys=keys)

    def _prepare(self, number: int, sequence: Sequence, hidden_states, cache: StagedCache, compact_positions: bool):
        """Entries, attention mask and rotary embeddings for a layer; equal for all layers that hold the same."""
        chunk = Entries(sequence.index, sequence.padded)
        before = cache.layers[number].entries
        entries = chunk if before is None else before.append(chunk)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=entries.mask,
            layer_idx=number,
            **cache_argument(cache),
        )
        position_ids = sequence.position_ids
        if compact_positions:
            position_ids = (entries.index >= 0).cumsum(-1)[:, -sequence.index.shape[1] :] - 1
            position_ids = position_ids.clamp_min(0)
        return entries, mask, self.rotary_emb(hidden_states, position_ids=position_ids)


class StagedLayerMixin:
    """Lets tokens leave a decoder layer between attention and MLP, so that the MLP runs on what stays.

    For a drop after the layer this is the same: the MLP sees each token alone, and nothing reads what it would give
    for a token that leaves.
    """

    input_layernorm: nn.Module
    self_attn: nn.Module
    post_attention_layernorm: nn.Module
    mlp: nn.Module

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        after_attention: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Run the layer; `after_attention` maps `[batch, length, channels]` to `[batch, kept, channels]`."""
        if after_attention is None:
            return super().forward(hidden_states, attention_mask=attention_mask, **kwargs)  # type: ignore[misc]
        attended, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states), attention_mask=attention_mask, **kwargs
        )
        hidden_states = after_attention(hidden_states + attended)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class StagedLlamaDecoderLayer(StagedLayerMixin, LlamaDecoderLayer):
    """Llama decoder layer with a place for tokens to leave."""


class StagedMistralDecoderLayer(StagedLayerMixin, MistralDecoderLayer):
    """Mistral decoder layer with a place for tokens to leave."""


class StagedQwen2DecoderLayer(StagedLayerMixin, Qwen2DecoderLayer):
    """Qwen2 decoder layer with a place for tokens to leave."""


class StagedLlamaModel(StagedDecoderMixin, LlamaModel):
    """Llama decoder with stages."""

    layer_class = StagedLlamaDecoderLayer


class StagedMistralModel(StagedDecoderMixin, MistralModel):
    """Mistral decoder with stages."""

    layer_class = StagedMistralDecoderLayer


class StagedQwen2Model(StagedDecoderMixin, Qwen2Model):
    """Qwen2 decoder with stages."""

    layer_class = StagedQwen2DecoderLayer


STAGED_DECODERS = {"llama": StagedLlamaModel, "mistral": StagedMistralModel, "qwen2": StagedQwen2Model}


class _Leaving:
    """Called between a layer's attention and its MLP: runs the stage, and remembers the sequence that it leaves."""

    def __init__(self, prefill: StagedPrefill, number: int, sequence: Sequence, held, entries: Entries, rows):
        self.prefill, self.number, self.sequence = prefill, number, sequence
        self.held, self.entries, self.rows = held, entries, rows

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        self.held.extend(self.entries)
        self.sequence, hidden_states = self.prefill.leave(
            self.number, self.sequence, hidden_states, self.rows.over_chunk
        )
        return hidden_states


class _RowScores:
    """Attention rows of the layer just run."""

    def __init__(self, layer, layer_input, position_embeddings, held):
        self.layer, self.layer_input, self.position_embeddings, self.held = (
            layer,
            layer_input,
            position_embeddings,
            held,
        )

    def over_cache(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :func:`decoder_attention_rows`."""
        return decoder_attention_rows(
            self.layer, self.layer_input, self.position_embeddings, self.held.keys, self.held.entries.mask, rows
        )

    def over_chunk(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, for the keys of the layer's own input only."""
        probabilities, valid = self.over_cache(rows)
        return probabilities[..., -self.layer_input.shape[1] :], valid


def _joined(prompt: _ChunkOutput, answer: _ChunkOutput) -> _ChunkOutput:
    """The output of an input that ran in two chunks."""
    return _ChunkOutput(
        last_hidden_state=torch.cat([prompt.last_hidden_state, answer.last_hidden_state], dim=1),
        hidden_states=join_states(prompt.hidden_states, answer.hidden_states),
        attentions=join_attentions(prompt.attentions, answer.attentions, prompt.keys, answer.keys),
        index=torch.cat([prompt.index, answer.index], dim=1),
    )


def _enter(cache: StagedCache, batch: int, position_ids, mask, request: ReductionRequest | None) -> Sequence:
    """The sequence of a chunk before the first layer; its provenance joins the cache's."""
    length, device = position_ids.shape[1], position_ids.device
    index = torch.arange(cache.seen, cache.seen + length, device=device).expand(batch, -1)
    padded = mask is not None and not bool(mask.all())
    if padded:
        index = index.masked_fill(~mask.to(device), -1)
    tokens = None if request is None else request.tokens
    if tokens is not None and cache.tokens is not None:
        images_before = cache.tokens.image.amax(-1, keepdim=True) + 1
        tokens = replace(tokens, image=torch.where(tokens.visual, tokens.image + images_before, tokens.image))
    cache.extend(batch, length, device, tokens)
    if tokens is None:
        tokens = VisualTokens.text(batch, length, device)
    return Sequence(index, position_ids, tokens, padded)


def _check_mask(attention_mask: torch.Tensor | None, past: int, length: int) -> None:
    if attention_mask is None:
        return
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2:
        raise ValueError("attention_mask must be a tensor of shape [batch, past + length], 0 for padding")
    if attention_mask.shape[1] != past + length:
        raise ValueError(
            f"attention_mask must cover {past} past and {length} new tokens, got {attention_mask.shape[1]} columns"
        )
    if past == 0 and bool((attention_mask.bool().int().diff(dim=-1) < 0).any()):
        raise ValueError('attention_mask pads on the right; use left padding (tokenizer.padding_side = "left")')


def _check_sliding_window(config, length: int) -> None:
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    active = window is not None and (layer_types is None or "sliding_attention" in layer_types)
    if active and length > window:
        raise ValueError(f"sliding_window={window} is shorter than the sequence of {length} tokens; not supported")
