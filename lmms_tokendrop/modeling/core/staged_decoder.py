"""The layer loop of Llama-like decoders, with stages at which visual tokens leave."""

from typing import Any

import torch
from torch import nn
from transformers import LlamaModel, MistralModel, PreTrainedModel, Qwen2Model
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..ops.eager_parts import compiling, of_any_length, on_host, part_by_part_under
from .chunk_outputs import joined
from .decoder_inputs import Chunk, ReductionRequest, input_chunks
from .decoder_run import DecoderRun
from .staged_cache import StagedCache, staged_cache
from .transformers_compat import cache_argument, takes_cache


class StagedDecoderMixin(PreTrainedModel):
    """Replaces the forward pass of a Llama-like decoder; parameters stay those of the stock class."""

    layer_class: type[nn.Module]

    def __init__(self, config):
        super().__init__(config)
        self._no_split_modules = [self.layer_class.__name__]
        self.layers = nn.ModuleList([self.layer_class(config, number) for number in range(config.num_hidden_layers)])
        self.post_init()

    @part_by_part_under(takes_cache, merge_with_config_defaults, can_return_tuple)
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
    ) -> BaseModelOutputWithPast:
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
        BaseModelOutputWithPast
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
        cache = staged_cache(cache, self.config)
        outputs, left, keys, compiled = [], [], [], compiling()
        for chunk in self._chunks(inputs_embeds, attention_mask, position_ids, cache, reduction):
            run = DecoderRun(self, chunk, cache, compiled)
            outputs.append(self._run(run, **kwargs))
            left.append(run.sequence.place)
            keys.append(run.keys)
        cache.left = left[0] if len(left) == 1 else torch.cat(left, dim=1)
        return self._output(outputs, keys, cache if use_cache else None)

    @on_host
    def _chunks(self, embeddings, attention_mask, position_ids, cache, reduction) -> list[Chunk]:
        chunks = input_chunks(self.config, embeddings, attention_mask, position_ids, cache.seen, reduction)
        reads_cache = cache.seen or len(chunks) > 1 or (reduction is not None and reduction.reads_cache)
        if reads_cache and self.training and any(layer.gradient_checkpointing for layer in self.layers):
            raise RuntimeError(
                "gradient checkpointing fills no cache, and a reduction inside the decoder, a prompt_length or a "
                "continued cache reads it; call model.gradient_checkpointing_disable() or model.eval(), or train with "
                '{"method": "none"} on whole inputs'
            )
        return chunks

    @part_by_part_under(capture_outputs)
    def _run(self, run: DecoderRun, **kwargs) -> BaseModelOutputWithPast:
        """Run a chunk through layers and stages."""
        if run.alike:
            hidden_states = run_layers(self.layers, run.states, run.before_layers(), **kwargs)
        else:
            hidden_states = run.states
            for number, layer in enumerate(self.layers[: self.config.num_hidden_layers]):
                arguments = run.before_layer(number, hidden_states)
                hidden_states = run_layer(layer, hidden_states, arguments, **kwargs)
                hidden_states = run.after_layer(number, hidden_states)
            if run.any_length:
                of_any_length(1, hidden_states)
        return run.finish(self.norm(hidden_states))

    @on_host
    def _output(self, outputs: list, keys: list, cache: StagedCache | None) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(**joined(outputs, keys), **cache_argument(cache))


class StagedLayerMixin(GradientCheckpointingLayer):
    """Lets tokens leave a decoder layer between attention and MLP, so that the MLP runs on what stays.

    For a drop after the layer this is the same: the MLP sees each token alone, and nothing reads what it would give
    for a token that leaves.
    """

    checkpointed = False

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the layer is run again for gradients, and fills no cache; never without, in any transformers."""
        return self.checkpointed and torch.is_grad_enabled()

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.checkpointed = value

    def forward(self, hidden_states: torch.Tensor, attention_mask=None, after_attention=None, **kwargs) -> torch.Tensor:
        """Run the layer; `after_attention` maps `[batch, length, channels]` to `[batch, kept, channels]`."""
        if after_attention is None:
            return super().forward(hidden_states, attention_mask=attention_mask, **kwargs)
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(hidden_states=normed, attention_mask=attention_mask, **kwargs)
        hidden_states = after_attention(hidden_states + attended)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


def run_layer(layer: nn.Module, hidden_states: torch.Tensor, arguments: dict[str, Any], **kwargs) -> torch.Tensor:
    """Run a layer: one graph of a compiled model, or two if tokens leave inside it, for all layers of a kind."""
    return layer(hidden_states, **arguments, **kwargs)


def run_layers(layers: nn.ModuleList, hidden_states: torch.Tensor, arguments: list[dict], **kwargs) -> torch.Tensor:
    """Run layers between which nothing happens: one graph of a compiled model."""
    for layer, own in zip(layers, arguments, strict=False):
        hidden_states = run_layer(layer, hidden_states, own, **kwargs)
    return hidden_states


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


def staged_decoder(config: Any) -> StagedDecoderMixin:
    """The staged decoder of a configuration; a ValueError if its model type has none."""
    if config.model_type not in STAGED_DECODERS:
        raise ValueError(
            f"text_config.model_type={config.model_type!r} has no staged decoder; allowed: {', '.join(STAGED_DECODERS)}"
        )
    return STAGED_DECODERS[config.model_type](config)
