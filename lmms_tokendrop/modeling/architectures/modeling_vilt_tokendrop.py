"""ViLT with fewer tokens, with its heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from typing import Any

import torch
from torch import nn
from transformers import (
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import (
    AnswerHead,
    FusionHead,
    FusionHeadOutput,
    RankHead,
    check_several_images,
    classifier,
    name_entailment_labels,
)
from .staged_vilt_model import (
    ViltTokenDropConfig,
    ViltTokenDropModel,
    ViltTokenDropModelOutput,
    ViltTokenDropPreTrainedModel,
)

__all__ = [
    "FusionHeadOutput",
    "ViltTokenDropConfig",
    "ViltTokenDropForImageAndTextRetrieval",
    "ViltTokenDropForImagesAndTextClassification",
    "ViltTokenDropForQuestionAnswering",
    "ViltTokenDropForVisualEntailment",
    "ViltTokenDropModel",
    "ViltTokenDropModelOutput",
    "ViltTokenDropPreTrainedModel",
]


class _OneImageHead(FusionHead, ViltTokenDropPreTrainedModel):
    """A head on the pooled state of one text and one image."""

    vilt: ViltTokenDropModel

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.LongTensor | None = None,
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
            `logits [batch, labels]`; `report` says what happened to the tokens.
        """
        outputs = self.vilt(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            inputs_embeds=inputs_embeds,
            image_embeds=image_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            sample_seeds=sample_seeds,
            return_dict=True,
        )
        return self.output_of_one(outputs, labels)


class ViltTokenDropForQuestionAnswering(AnswerHead, _OneImageHead, ViltForQuestionAnswering):
    """ViLT with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class ViltTokenDropForVisualEntailment(_OneImageHead):
    """ViLT with a classifier over contradiction, neutral and entailment (SNLI-VE). Stock transformers has no such head.

    The classifier has the form and the parameter names of the question answering head; the loss is cross entropy.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        name_entailment_labels(config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class ViltTokenDropForImageAndTextRetrieval(RankHead, _OneImageHead, ViltForImageAndTextRetrieval):
    """ViLT with a score of how well a text fits an image that drops or merges tokens."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.vilt = ViltTokenDropModel(config)
        self.rank_output = nn.Linear(config.hidden_size, 1)
        self.post_init()


class ViltTokenDropForImagesAndTextClassification(
    FusionHead, ViltTokenDropPreTrainedModel, ViltForImagesAndTextClassification
):
    """ViLT with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The encoder runs once per image, and the text is reduced anew beside each.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        check_several_images(config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        width = config.hidden_size * config.num_images
        self.classifier = classifier(width, width, config.num_labels)
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
        labels: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.LongTensor | None = None,
    ) -> FusionHeadOutput:
        """Run the model.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, images, 3, height, width]`; `pixel_mask` and `image_embeds` have the same two first dimensions. A
            model of one image takes all of them without `images` too.
        labels : torch.LongTensor, optional
            `[batch]`.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them; unknown names raise a TypeError.

        Returns
        -------
        FusionHeadOutput
            `logits [batch, labels]`; `hidden_states`, `attentions` and `report` are lists with an entry per image.

        Raises
        ------
        ValueError
            If the number of images is not `config.num_images`.
        """
        alone = (pixel_values is not None and pixel_values.ndim == 4) or (
            image_embeds is not None and image_embeds.ndim == 3
        )
        if alone:
            pixel_values, pixel_mask, image_embeds = (
                None if values is None else values[:, None] for values in (pixel_values, pixel_mask, image_embeds)
            )
        self.check_images(pixel_values, image_embeds, pixel_mask)

        def one(values: Any, number: int) -> Any:
            return None if values is None else values[:, number]

        outputs = [
            self.vilt(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                pixel_values=one(pixel_values, number),
                pixel_mask=one(pixel_mask, number),
                inputs_embeds=inputs_embeds,
                image_embeds=one(image_embeds, number),
                image_token_type_idx=number + 1,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                sample_seeds=sample_seeds,
                return_dict=True,
            )
            for number in range(self.config.num_images)
        ]
        return self.output_of_several(outputs, labels)
