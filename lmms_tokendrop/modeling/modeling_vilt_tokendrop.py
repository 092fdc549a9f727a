"""ViLT with fewer tokens, with its heads."""

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

from .staged_vilt_model import (
    ViltTokenDropConfig,
    ViltTokenDropModel,
    ViltTokenDropModelOutput,
    ViltTokenDropOutput,
    ViltTokenDropPreTrainedModel,
)

__all__ = [
    "ViltTokenDropConfig",
    "ViltTokenDropForImageAndTextRetrieval",
    "ViltTokenDropForImagesAndTextClassification",
    "ViltTokenDropForQuestionAnswering",
    "ViltTokenDropForVisualEntailment",
    "ViltTokenDropModel",
    "ViltTokenDropModelOutput",
    "ViltTokenDropOutput",
    "ViltTokenDropPreTrainedModel",
]

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")


class _OneImageHead(ViltTokenDropPreTrainedModel):
    """A head on the pooled state of one text and one image."""

    vilt: ViltTokenDropModel

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.LongTensor | None = None,
    ) -> ViltTokenDropOutput:
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
        ViltTokenDropOutput
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
        logits = self.head(outputs.pooler_output)
        return ViltTokenDropOutput(
            loss=None if labels is None else self.loss(logits, labels.to(logits.device)),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            report=outputs.report,
        )

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of pooled states `[batch, channels]`."""
        return self.classifier(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits."""
        return nn.functional.cross_entropy(logits, labels.view(-1))


class ViltTokenDropForQuestionAnswering(_OneImageHead, ViltForQuestionAnswering):
    """ViLT with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy with soft scores `[batch, labels]`, summed over labels, as the stock class has it."""
        return nn.functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


class ViltTokenDropForVisualEntailment(_OneImageHead):
    """ViLT with a classifier over contradiction, neutral and entailment (SNLI-VE). Stock transformers has no such head.

    The classifier has the form and the parameter names of the question answering head; the loss is cross entropy.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        if config.num_labels != len(ENTAILMENT_LABELS):
            raise ValueError(f"num_labels={config.num_labels}; visual entailment has {len(ENTAILMENT_LABELS)} labels")
        if set(config.id2label.values()) == {f"LABEL_{number}" for number in range(config.num_labels)}:
            config.id2label = dict(enumerate(ENTAILMENT_LABELS))
            config.label2id = {label: number for number, label in enumerate(ENTAILMENT_LABELS)}
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class ViltTokenDropForImageAndTextRetrieval(_OneImageHead, ViltForImageAndTextRetrieval):
    """ViLT with a score of how well a text fits an image that drops or merges tokens."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.vilt = ViltTokenDropModel(config)
        self.rank_output = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, 1]`."""
        return self.rank_output(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Not defined: a score alone has no loss, as in the stock class."""
        raise NotImplementedError("labels: one score has no loss; compare the scores of several candidates")


class ViltTokenDropForImagesAndTextClassification(ViltTokenDropPreTrainedModel, ViltForImagesAndTextClassification):
    """ViLT with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The encoder runs once per image, and the text is reduced anew beside each.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
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
        pixel_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.LongTensor | None = None,
    ) -> ViltTokenDropOutput:
        """Run the model.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, images, 3, height, width]`; `pixel_mask` and `image_embeds` have the same two first dimensions.
        labels : torch.LongTensor, optional
            `[batch]`.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them; unknown names raise a TypeError.

        Returns
        -------
        ViltTokenDropOutput
            `logits [batch, labels]`; `hidden_states`, `attentions` and `report` are lists with an entry per image.

        Raises
        ------
        ValueError
            If the number of images is not `config.num_images`.
        """
        if pixel_values is not None and pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)
        if image_embeds is not None and image_embeds.ndim == 3:
            image_embeds = image_embeds.unsqueeze(1)
        images = pixel_values if pixel_values is not None else image_embeds
        if images is None or images.shape[1] != self.config.num_images:
            given = 0 if images is None else images.shape[1]
            raise ValueError(f"{given} images per text; the model takes {self.config.num_images}")

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
            for number in range(images.shape[1])
        ]
        logits = self.classifier(torch.cat([output.pooler_output for output in outputs], dim=-1))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device).view(-1))
        return ViltTokenDropOutput(
            loss=loss,
            logits=logits,
            hidden_states=[output.hidden_states for output in outputs],
            attentions=[output.attentions for output in outputs],
            report=[output.report for output in outputs],
        )


def classifier(channels: int, width: int, labels: int) -> nn.Sequential:
    """The form that all of ViLT's classifiers have, with stock's parameter names."""
    return nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, labels))
