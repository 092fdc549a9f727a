"""A model with a language modelling head whose decoder drops tokens, and what its `generate` does otherwise."""

from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin, GenerationMode
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput

from .loading import TokenDropLoading, use_public_keys
from .staged_cache import staged_cache
from .transformers_compat import CACHE, cache_of


class StagedGenerationMixin(TokenDropLoading, GenerationMixin):
    """A model with a language modelling head whose decoder is staged; comes before the stock class in a class's bases.

    Attributes
    ----------
    base_class : type
        The model without head.
    """

    base_class: ClassVar[type]

    def __init__(self, config):
        PreTrainedModel.__init__(self, config)
        self.model: Any = self.base_class(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as `PreTrainedModel.save_pretrained` does, with the names of public checkpoints."""
        use_public_keys(self)
        super().save_pretrained(save_directory, *args, **kwargs)

    def reports(self, output: ModelOutput) -> list:
        """What happened to the tokens of a request, in one report."""
        return [cache_of(output).report()]

    def _prepare_cache_for_generation(
        self, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
    ) -> None:
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r}: layers of a reduced model hold "
                "different tokens, so the cache must be a StagedCache; allowed: None, 'dynamic'"
            )
        if generation_config.prefill_chunk_size is not None:
            raise ValueError(
                "prefill_chunk_size: tokens are judged by the whole prompt; chunked prefill is not supported"
            )
        if generation_mode == GenerationMode.ASSISTED_GENERATION:
            raise ValueError(
                "assistant_model, prompt_lookup_num_tokens: assisted decoding rolls the cache back past tokens that "
                "may have left; not supported"
            )
        cache = model_kwargs.get(CACHE)
        if cache is None and generation_config.use_cache is False:
            model_kwargs["prompt_length"] = model_kwargs["position_ids"].shape[-1]
        else:
            model_kwargs[CACHE] = staged_cache(cache, self.config)

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor, model_kwargs, model_input_name, generation_config
    ):
        if model_input_name == "input_ids" and model_kwargs.get("pixel_values") is not None:
            ids, cache = inputs_tensor, model_kwargs.get(CACHE)
            if cache is not None and ids.shape[1] > cache.get_seq_length():
                ids = ids[:, cache.get_seq_length() :]
            model_kwargs |= self.model.of_requests(ids, model_kwargs["pixel_values"], model_kwargs.get("image_sizes"))
        return super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )

    def _expand_multimodal_outputs(self, input_ids, mm_encoder_output, expand_size=1, inputs_embeds=None):
        images = mm_encoder_output.get("image")
        if images is not None:
            tokens = BaseModelOutputWithPooling(pooler_output=images.visual_tokens)
            super()._expand_multimodal_outputs(input_ids, {"image": tokens}, expand_size, inputs_embeds)
            images.visual_tokens = tokens.pooler_output
        return super()._expand_multimodal_outputs(input_ids, mm_encoder_output, expand_size, inputs_embeds)
