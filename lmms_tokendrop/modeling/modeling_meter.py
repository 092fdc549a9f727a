"""METER's heads (CVPR 2022, arXiv 2111.02387)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .meter_model import MeterConfig, MeterModel, MeterModelOutput, MeterPreTrainedModel
from .meter_pretraining import MeterForPreTraining, MeterPreTrainingOutput

__all__ = [
    "MeterConfig",
    "MeterForImageAndTextRetrieval",
    "MeterForImagesAndTextClassification",
    "MeterForPreTraining",
    "MeterForQuestionAnswering",
    "MeterForVisualEntailment",
    "MeterModel",
    "MeterModelOutput",
    "MeterOutput",
    "MeterPreTrainedModel",
    "MeterPreTrainingOutput",
]

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")


@dataclass
class MeterOutput(ModelOutput):
    """Output of a head.

    Attributes
    ----------
    loss : torch.Tensor, optional
        Where labels were given.
    logits : torch.Tensor
        `[batch, labels]`.
    hidden_states, attentions : tuple, optional
        As :class:`MeterModelOutput` has them; a list of those per image for several images.
    report : FusionReport, optional
        What happened to the tokens, of models that drop or merge some; a list for several images.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: Any = None
    attentions: Any = None
    report: Any = None


class _OneImageHead(MeterPreTrainedModel):
    """A head on the pooled states of one text and one image."""

    encoder_class: ClassVar[type[MeterModel]] = MeterModel

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        self.meter = self.encoder_class(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **encoder_options,
    ) -> MeterOutput:
        """Run the model.

        Parameters
        ----------
        labels : torch.Tensor, optional
            What the loss of the head takes.
        *args, **kwargs
            As :meth:`MeterModel.forward` takes them.

        Returns
        -------
        MeterOutput
            `logits [batch, labels]`.
        """
        outputs = self.meter(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **encoder_options,
        )
        logits = self.head(outputs.pooler_output)
        return MeterOutput(
            loss=None if labels is None else self.loss(logits, labels.to(logits.device)),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            report=outputs.report,
        )

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of pooled states `[batch, 2 * channels]`."""
        return self.classifier(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits."""
        return nn.functional.cross_entropy(logits, labels.view(-1))


class MeterForQuestionAnswering(_OneImageHead):
    """METER with a classifier over answers (VQAv2)."""

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.classifier = classifier(2 * config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy with soft scores `[batch, labels]`, summed over labels."""
        return nn.functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


class MeterForVisualEntailment(_OneImageHead):
    """METER with a classifier over contradiction, neutral and entailment (SNLI-VE)."""

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        if config.num_labels != len(ENTAILMENT_LABELS):
            raise ValueError(f"num_labels={config.num_labels}; visual entailment has {len(ENTAILMENT_LABELS)} labels")
        if set(config.id2label.values()) == {f"LABEL_{number}" for number in range(config.num_labels)}:
            config.id2label = dict(enumerate(ENTAILMENT_LABELS))
            config.label2id = {label: number for number, label in enumerate(ENTAILMENT_LABELS)}
        self.num_labels = config.num_labels
        self.classifier = classifier(2 * config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class MeterForImageAndTextRetrieval(_OneImageHead):
    """METER with a score of how well a text fits an image."""

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        self.rank_output = nn.Linear(2 * config.hidden_size, 1)
        self.post_init()

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, 1]`."""
        return self.rank_output(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Not defined: a score alone has no loss."""
        raise NotImplementedError("labels: one score has no loss; compare the scores of several candidates")


class MeterForImagesAndTextClassification(MeterPreTrainedModel):
    """METER with a classifier over a text and several images (NLVR2).

    The text is encoded once; the cross-modal layers run once per image.
    """

    encoder_class: ClassVar[type[MeterModel]] = MeterModel

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        if config.modality_type_vocab_size <= config.num_images:
            raise ValueError(
                f"modality_type_vocab_size={config.modality_type_vocab_size}; {config.num_images} images and a text "
                f"need {config.num_images + 1}"
            )
        self.num_labels = config.num_labels
        self.meter = self.encoder_class(config)
        width = 2 * config.hidden_size
        self.classifier = classifier(width * config.num_images, width, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **encoder_options,
    ) -> MeterOutput:
        """Run the model.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, images, 3, height, width]`; `image_embeds` has the same two first dimensions.
        labels : torch.LongTensor, optional
            `[batch]`.
        *args, **kwargs
            As :meth:`MeterModel.forward` takes them.

        Returns
        -------
        MeterOutput
            `logits [batch, labels]`; `hidden_states`, `attentions` and `report` are lists with an entry per image.

        Raises
        ------
        ValueError
            If the number of images is not `config.num_images`.
        """
        images = pixel_values if pixel_values is not None else image_embeds
        given = 0 if images is None else images.shape[1]
        if given != self.config.num_images:
            raise ValueError(f"{given} images per text; the model takes {self.config.num_images}")
        if text_embeds is None and input_ids is not None:
            text_embeds, input_ids = self.meter.get_text_features(input_ids, attention_mask), None
        outputs = [
            self.meter(
                input_ids=input_ids,
                attention_mask=attention_mask,
                pixel_values=None if pixel_values is None else pixel_values[:, number],
                text_embeds=text_embeds,
                image_embeds=None if image_embeds is None else image_embeds[:, number],
                image_token_type_idx=number + 1,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
                **encoder_options,
            )
            for number in range(given)
        ]
        logits = self.classifier(torch.cat([output.pooler_output for output in outputs], dim=-1))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device).view(-1))
        return MeterOutput(
            loss=loss,
            logits=logits,
            hidden_states=per_image(outputs, "hidden_states"),
            attentions=per_image(outputs, "attentions"),
            report=per_image(outputs, "report"),
        )


def per_image(outputs: list[MeterModelOutput], name: str) -> list | None:
    """An entry of the outputs of several images, or None where it was not asked for."""
    entries = [getattr(output, name) for output in outputs]
    return None if entries[0] is None else entries


def classifier(channels: int, width: int, labels: int) -> nn.Sequential:
    """The form that all of METER's classifiers have."""
    return nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, labels))
