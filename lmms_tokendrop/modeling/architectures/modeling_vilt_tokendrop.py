"""ViLT with fewer tokens: configuration, encoder, and heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltModel,
    ViltPreTrainedModel,
)
from transformers.models.vilt.modeling_vilt import ViltPooler
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import (
    IMAGES,
    AnswerHead,
    EntailmentHead,
    FusionHead,
    FusionHeadOutput,
    RankHead,
    SeveralImagesHead,
    check_inputs,
    check_tensor,
    check_text_length,
    checked_seeds,
)
from ..core.fusion_plan import ReducedEncoder
from ..core.fusion_tokens import FusionTokens
from ..core.loading import TokenDropLoading
from ..core.token_drop_config import TokenDropConfig
from ..methods.available import reductions
from ..ops.eager_parts import on_host
from .staged_vilt import StagedViltEmbeddings, StagedViltEncoder, ViltTokenDropModelOutput

FusionReductionConfig = reductions("vilt")
"""The methods, and what options mean for them."""


class ViltTokenDropConfig(TokenDropConfig, ViltConfig):
    """ViLT's configuration and a `token_reduction`."""

    model_type = "vilt_tokendrop"
    keys_to_ignore_at_inference: ClassVar = ["hidden_states", "attentions", "report"]
    reduction_class = FusionReductionConfig


class ViltTokenDropPreTrainedModel(TokenDropLoading, ViltPreTrainedModel):
    """Loading and attention backends that all classes share."""

    config: ViltTokenDropConfig
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules: ClassVar = ["ViltTokenDropModel"]


class ViltTokenDropModel(ReducedEncoder, ViltTokenDropPreTrainedModel, ViltModel):
    """ViLT without head, with a token reducer."""

    def __init__(self, config: ViltTokenDropConfig, add_pooling_layer: bool = True):
        ViltPreTrainedModel.__init__(self, config)
        self.embeddings = StagedViltEmbeddings(config)
        self.encoder = StagedViltEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = ViltPooler(config) if add_pooling_layer else None
        self.token_reducer = self.build_reducer(ViltTokenDropConfig.reduction_of(config))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        image_token_type_idx: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.Tensor | None = None,
    ) -> ViltTokenDropModelOutput:
        """Run the encoder.

        Parameters
        ----------
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them; unknown names raise a TypeError.

        Raises
        ------
        ValueError
            If not exactly one of each pair of inputs is given, if their numbers or shapes differ, if text is padded
            on the left or longer than the model's positions, if the model lacks the image's token type, or if
            `image_embeds` are given to a method that scales images down.
        """
        texts = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        images = {"pixel_values": pixel_values, "image_embeds": image_embeds}
        attention_mask = check_inputs(self.config, texts, images, attention_mask, image_token_type_idx)
        check_text_length(attention_mask.shape[1], self.config.max_position_embeddings)
        masked = pixel_values[:, 0] if image_embeds is None else image_embeds[..., 0]
        if pixel_mask is None:
            pixel_mask = torch.ones_like(masked, dtype=torch.long)
        elif image_embeds is not None:
            pixel_mask = pixel_mask.flatten(1)
        check_tensor("pixel_mask", pixel_mask, masked.shape)
        if token_type_ids is not None:
            check_tensor("token_type_ids", token_type_ids, attention_mask.shape)
        if image_embeds is not None and self.used_reducer.image_scale != 1:
            raise ValueError("image_embeds; allowed with the option image_size: pixel_values, which it scales down")
        sample_seeds = checked_seeds(sample_seeds, len(attention_mask))
        texts["token_type_ids"], scale = token_type_ids, self.used_reducer.image_scale
        embeddings, tokens, patches = self.embeddings(
            texts, attention_mask.bool(), pixel_values, pixel_mask, image_embeds, image_token_type_idx, scale
        )
        keep_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        keep_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        outputs = self.encoder(embeddings, tokens, self.used_reducer, sample_seeds, keep_attentions, keep_states)
        outputs.report.patches = patches
        outputs.report.full_visual_tokens = self.full_image_tokens(tokens, pixel_mask)
        states = self.layernorm(outputs.last_hidden_state)
        pooled = None if self.pooler is None else self.pooler(states)
        return replace(outputs, last_hidden_state=states, pooler_output=pooled)

    @on_host
    def full_image_tokens(self, tokens: FusionTokens, pixel_mask: torch.Tensor) -> list[int]:
        """Tokens of each image before it was scaled down, given those that went in; padding as the method counts it."""
        counts = tokens.counts()[1]
        if self.used_reducer.image_scale != 1:
            counts = self.embeddings.image_token_counts(pixel_mask)
        if self.used_reducer.counts_padding:
            counts = counts.max().expand_as(counts)
        return counts.tolist()


class _ViltHead(FusionHead, ViltTokenDropPreTrainedModel):
    """A head on pooled states of a text and of one image or several."""

    encoder_class = ViltTokenDropModel

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options,
    ) -> FusionHeadOutput:
        """Run the model.

        Parameters
        ----------
        labels : torch.Tensor, optional
            What the loss of the head takes.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them; unknown names raise a TypeError.

        Returns
        -------
        FusionHeadOutput
            `logits [batch, labels]`; `report` says what happened to the tokens. With several images `hidden_states`,
            `attentions` and `report` are lists with an entry per image.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        images = {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "image_embeds": image_embeds}
        return self.run(labels, {**text, "inputs_embeds": inputs_embeds, **images, **options})


class ViltTokenDropForQuestionAnswering(AnswerHead, _ViltHead, ViltForQuestionAnswering):
    """ViLT with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says."""


class ViltTokenDropForVisualEntailment(EntailmentHead, _ViltHead):
    """ViLT with a classifier over contradiction, neutral and entailment (SNLI-VE). Stock transformers has no such head.

    The classifier has the form and the parameter names of the question answering head; the loss is cross entropy.
    """


class ViltTokenDropForImageAndTextRetrieval(RankHead, _ViltHead, ViltForImageAndTextRetrieval):
    """ViLT with a score of how well a text fits an image that drops or merges tokens."""


class ViltTokenDropForImagesAndTextClassification(SeveralImagesHead, _ViltHead, ViltForImagesAndTextClassification):
    """ViLT with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The encoder runs once per image, and the text is reduced anew beside each. `pixel_values` are `[batch, images, 3,
    height, width]`; `pixel_mask` and `image_embeds` have the same two first dimensions. A model of one image takes all
    of them without `images` too.
    """

    def head_width(self, channels: int) -> int:
        """As wide as what it reads."""
        return channels

    def run(self, labels: torch.Tensor | None, inputs: dict) -> FusionHeadOutput:
        """Also of images `[batch, ...]` alone."""
        alone = {"pixel_values": 4, "image_embeds": 3}
        if any(inputs[name] is not None and inputs[name].ndim == ndim for name, ndim in alone.items()):
            inputs = {**inputs, **{name: inputs[name][:, None] for name in IMAGES if inputs[name] is not None}}
        return super().run(labels, inputs)
