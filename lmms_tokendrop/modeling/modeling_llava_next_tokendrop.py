"""LLaVA-NeXT with fewer visual tokens."""

from .tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaNextPreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.llava_next.modeling_llava_next import (
    LlavaNextCausalLMOutputWithPast,
    LlavaNextModelOutputWithPast,
    LlavaNextMultiModalProjector,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults

from .anyres_features import AnyresFeaturesMixin
from .base_weights import BaseWeightsMixin
from .checkpoint_keys import SavesPublicKeys
from .eager_parts import on_host, part_by_part_under
from .generation import StagedGenerationMixin, check_loaded, check_nothing_left
from .processing_llava_next_tokendrop import FlatLlavaNextProcessor, LlavaNextTokenDropProcessor
from .reduction_request import ReductionRequest
from .saved_code import SavesItsCode
from .staged_clip import StagedCLIPVisionModel
from .staged_decoder import STAGED_DECODERS
from .stock_config import ReadsStockConfig
from .token_reduction_config import TokenReductionConfig
from .transformers_compat import cache_argument, cache_of, copied_image_fields, image_fields, takes_cache
from .vision_inputs import check_encoded
from .visual_tokens import VisualTokens

__all__ = [
    "FlatLlavaNextProcessor",
    "LlavaNextTokenDropConfig",
    "LlavaNextTokenDropForConditionalGeneration",
    "LlavaNextTokenDropModel",
    "LlavaNextTokenDropModelOutput",
    "LlavaNextTokenDropProcessor",
]


class LlavaNextTokenDropConfig(SavesItsCode, ReadsStockConfig, LlavaNextConfig):
    """LLaVA-NeXT's configuration and a `token_reduction`.

    Parameters
    ----------
    token_reduction : dict, optional
        Options of :class:`TokenReductionConfig`, read when a model is built; None is the unreduced model.
    base_weights : dict, optional
        Hub repository and commit that hold the weights, see :class:`BaseWeightsMixin`; default: they are beside this.
    """

    model_type = "llava_next_tokendrop"
    token_reduction: dict | None = None
    base_weights: dict | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a configuration; options that were saved in an earlier format keep their meaning."""
        options, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if options.get("token_reduction") is not None:
            options = {**options, "token_reduction": TokenReductionConfig.restored(options["token_reduction"])}
        return options, kwargs

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.token_reduction = TokenReductionConfig.from_dict(self.token_reduction).to_dict()


@dataclass
class LlavaNextTokenDropModelOutput(LlavaNextModelOutputWithPast):
    """The model's output, and `index [batch, kept]`: the place of each state's token in the unreduced sequence."""

    index: torch.Tensor | None = None


class LlavaNextTokenDropModel(AnyresFeaturesMixin, LlavaNextModel):
    """LLaVA-NeXT without language modelling head, with a token reducer."""

    config: LlavaNextTokenDropConfig
    language_model: Any

    def __init__(self, config: LlavaNextTokenDropConfig):
        LlavaNextPreTrainedModel.__init__(self, config)
        text_config, vision_config = config.text_config, config.vision_config
        options = TokenReductionConfig.from_dict(getattr(config, "token_reduction", None))
        if text_config.model_type not in STAGED_DECODERS:
            raise ValueError(
                f"text_config.model_type={text_config.model_type!r} has no staged decoder; "
                f"allowed: {', '.join(STAGED_DECODERS)}"
            )
        reducer = options.build(text_config.num_hidden_layers)
        if any(stage.where == "vision" for stage in reducer.stages()):
            _check_vision(config, options.method)
            self.vision_tower = StagedCLIPVisionModel(vision_config)
        else:
            self.vision_tower = AutoModel.from_config(vision_config)
        self.multi_modal_projector = LlavaNextMultiModalProjector(config)
        self.image_newline = nn.Parameter(torch.randn(text_config.hidden_size) * text_config.hidden_size**-0.5)
        self.vocab_size = text_config.vocab_size
        self.language_model = STAGED_DECODERS[text_config.model_type](text_config)
        self.token_reducer = reducer
        self.post_init()

    @part_by_part_under(takes_cache, merge_with_config_defaults, can_return_tuple)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache=None,
        inputs_embeds: torch.Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict | None = None,
        prompt_length: int | None = None,
        sample_seeds: torch.LongTensor | None = None,
        **kwargs,
    ) -> LlavaNextTokenDropModelOutput:
        """Run the model; the parameters are those of :class:`LlavaNextTokenDropForConditionalGeneration`."""
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if pixel_values is not None and mm_encoder_outputs:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        if self.token_reducer.config.decode_interval is not None and not use_cache:
            raise ValueError("decode_interval: the output-aware policy shrinks a cache; it needs use_cache=True")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        check_encoded(mm_encoder_outputs or {})
        images = (mm_encoder_outputs or {}).get("image")
        if images is None and pixel_values is not None and pixel_values.size(0) > 0:
            images = self.get_image_features(
                pixel_values,
                image_sizes,
                vision_feature_layer=vision_feature_layer,
                vision_feature_select_strategy=vision_feature_select_strategy,
                images_per_request=self._images_per_request(input_ids, image_sizes),
                return_dict=True,
            )
        inputs_embeds, features, tokens = self._place(input_ids, inputs_embeds, images, prompt_length, cache)
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            **cache_argument(cache),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            reduction=self._request(tokens, prompt_length, sample_seeds),
            **kwargs,
        )
        return self._output(outputs, images, features)

    @on_host
    def _images_per_request(self, input_ids: torch.Tensor | None, image_sizes) -> list[int] | None:
        if input_ids is None:
            return None
        return self.images_per_request(input_ids == self.config.image_token_id, image_sizes)

    @on_host
    def _place(self, input_ids, inputs_embeds: torch.Tensor, images, prompt_length: int | None, cache) -> tuple:
        """Embeddings with the images' features at their placeholders, these features, and their provenance."""
        if images is None:
            if input_ids is not None:
                self._check_no_placeholders(input_ids[:, :prompt_length], cache)
            return inputs_embeds, None, None
        features = torch.cat(list(images.pooler_output), dim=0).to(inputs_embeds.device, inputs_embeds.dtype)
        mask = self.get_placeholder_mask(input_ids, inputs_embeds=inputs_embeds, image_features=features)
        tokens = VisualTokens.place(images.visual_tokens, mask[..., 0])
        return inputs_embeds.masked_scatter(mask, features), features, tokens

    @on_host
    def _request(self, tokens: VisualTokens | None, prompt_length: int | None, sample_seeds) -> ReductionRequest:
        return ReductionRequest(self.token_reducer, tokens, prompt_length, sample_seeds)

    @on_host
    def _output(self, outputs: Any, images: Any, features: torch.Tensor | None) -> LlavaNextTokenDropModelOutput:
        return LlavaNextTokenDropModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **cache_argument(cache_of(outputs)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **image_fields(images, features),
            index=outputs.index,
        )

    def _check_no_placeholders(self, prompt: torch.Tensor, cache) -> None:
        started = cache is not None and cache.get_seq_length() > 0
        if not started and self.token_reducer.stages() and bool((prompt == self.config.image_token_id).any()):
            raise ValueError("input_ids has image placeholders, but there are no pixel_values to reduce")


class LlavaNextTokenDropForConditionalGeneration(
    StagedGenerationMixin, BaseWeightsMixin, SavesPublicKeys, LlavaNextForConditionalGeneration
):
    """LLaVA-NeXT that drops or merges visual tokens, as `config.token_reduction` says."""

    config: LlavaNextTokenDropConfig
    config_class = LlavaNextTokenDropConfig

    def __init__(self, config: LlavaNextTokenDropConfig):
        LlavaNextPreTrainedModel.__init__(self, config)
        self.model = LlavaNextTokenDropModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        config=None,
        token_reduction=None,
        output_loading_info=False,
        **kwargs,
    ):
        """Load a stock LLaVA-NeXT checkpoint, or one of this class.

        Parameters
        ----------
        pretrained_model_name_or_path : str or os.PathLike
            Repository or folder.
        config : PreTrainedConfig, str or os.PathLike, optional
            One of the class or of the stock model, or where it is stored; default: the checkpoint's.
        token_reduction : dict, optional
            Options of :class:`TokenReductionConfig`; default: the config's.
        output_loading_info : bool, optional
            Whether to return the loading report too.
        *args, **kwargs
            As `PreTrainedModel.from_pretrained` takes them.

        Returns
        -------
        LlavaNextTokenDropForConditionalGeneration
            The model, in eval mode; with `output_loading_info` a pair of it and a dict.

        Raises
        ------
        ValueError
            If an option is wrong, or if the checkpoint's keys are not exactly the model's.
        """
        config = None if config is None else LlavaNextTokenDropConfig.of(config)
        if config is not None and token_reduction is not None:
            config = copy.deepcopy(config)
            config.token_reduction = TokenReductionConfig.from_dict(token_reduction).to_dict()
        elif token_reduction is not None:
            kwargs["token_reduction"] = TokenReductionConfig.from_dict(token_reduction).to_dict()
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
        )
        check_loaded(cls, info)
        return (model, info) if output_loading_info else model

    @merge_with_config_defaults
    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        image_sizes: torch.LongTensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        images_per_request: list[int] | None = None,
        **kwargs,
    ):
        """Encode images; see :meth:`AnyresFeaturesMixin.get_image_features`."""
        return self.model.get_image_features(
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            images_per_request=images_per_request,
            **kwargs,
        )

    @takes_cache
    @merge_with_config_defaults
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache=None,
        inputs_embeds: torch.Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict | None = None,
        prompt_length: int | None = None,
        sample_seeds: torch.LongTensor | None = None,
        **kwargs,
    ) -> LlavaNextCausalLMOutputWithPast:
        """Run the model.

        Parameters
        ----------
        prompt_length : int, optional
            Tokens of the input that are the prompt. Later ones are an answer: they do not decide what stays, and see
            in every layer what the cache would hold after the prompt. Default: all.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of `method="random"`.
        *args, **kwargs
            As the stock class takes them. Positions, mask and cache are those of the unreduced sequence.

        Returns
        -------
        LlavaNextCausalLMOutputWithPast
            `logits [batch, what is left of length, vocabulary]`, aligned on the right. `hidden_states` and
            `attentions` have the stock number of entries, and the length of what a layer received; behind
            `prompt_length` those of the answer are appended, see :func:`join_states` and :func:`join_attentions`.

        Raises
        ------
        ValueError
            If the budget can't be reached, the prompt ends in an image, the mask pads on the right, or `labels` are
            given and tokens left.
        """
        outputs = self.model(
            input_ids,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            prompt_length=prompt_length,
            sample_seeds=sample_seeds,
            return_dict=True,
            **kwargs,
        )
        for argument, value in (("labels", labels), ("logits_to_keep", logits_to_keep)):
            if isinstance(value, torch.Tensor):
                length = (inputs_embeds if input_ids is None else input_ids).shape[1]
                check_nothing_left(argument, outputs.index, attention_mask, length)
        positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs[0][:, positions])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return LlavaNextCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **cache_argument(cache_of(outputs)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **copied_image_fields(outputs),
        )


def _check_vision(config: LlavaNextTokenDropConfig, method: str) -> None:
    if config.vision_config.model_type != "clip_vision_model":
        raise ValueError(
            f"method={method!r} needs a vision tower with a CLS token; allowed: 'clip_vision_model', "
            f"got {config.vision_config.model_type!r}"
        )
    if config.vision_feature_select_strategy != "default":
        raise ValueError(f"method={method!r} needs vision_feature_select_strategy='default'")


for name in ("LlavaNextTokenDropForConditionalGeneration", LlavaNextTokenDropConfig.model_type):
    register_checkpoint_conversion_mapping(name, get_checkpoint_conversion_mapping("llava_next"), overwrite=True)
register_checkpoint_conversion_mapping(
    "LlavaNextTokenDropModel", get_checkpoint_conversion_mapping("LlavaNextModel"), overwrite=True
)
