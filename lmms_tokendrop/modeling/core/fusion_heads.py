"""What the heads on encoders of text and image share, whatever the encoder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from .fusion_inputs import FORMS_OF_SEVERAL, check_tensor, only_one

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
TRUTH_LABELS = ("False", "True")


@dataclass
class FusionHeadOutput(ModelOutput):
    """Output of a head.

    Attributes
    ----------
    loss : torch.Tensor, optional
        Where labels were given.
    logits : torch.Tensor
        `[batch, labels]`.
    hidden_states, attentions : tuple, optional
        As the encoder has them; a list of those per image for several images.
    report : FusionReport, optional
        What happened to the tokens, of models that drop or merge some; a list for several images.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: Any = None
    attentions: Any = None
    report: Any = None


class FusionHead:
    """A classifier on pooled states, for classes of models to inherit from."""

    config: Any
    classifier: nn.Module

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of pooled states `[batch, channels]`."""
        return self.classifier(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits; a ValueError unless `labels` has a whole number per row."""
        labels = labels.view(-1)
        check_tensor("labels", labels, logits.shape[:1], floating=False)
        return nn.functional.cross_entropy(logits, labels)

    def output(self, pooled: torch.Tensor, labels: torch.Tensor | None, **collected: Any) -> FusionHeadOutput:
        """Logits of pooled states and their loss, beside what the encoder collected."""
        logits = self.head(pooled)
        loss = None if labels is None else self.loss(logits, labels.to(logits.device))
        return FusionHeadOutput(loss=loss, logits=logits, **collected)

    def output_of_one(self, encoded: ModelOutput, labels: torch.Tensor | None) -> FusionHeadOutput:
        """Output for one image per text, from the encoder's."""
        names = ("hidden_states", "attentions", "report")
        return self.output(encoded.pooler_output, labels, **{name: getattr(encoded, name) for name in names})

    def output_of_several(self, encoded: list[ModelOutput], labels: torch.Tensor | None) -> FusionHeadOutput:
        """Output for several images per text, from the encoder's for each; what it did not collect is None."""
        collected: dict[str, list | None] = {}
        for name in ("hidden_states", "attentions", "report"):
            entries = [getattr(entry, name) for entry in encoded]
            collected[name] = None if entries[0] is None else entries
        return self.output(torch.cat([entry.pooler_output for entry in encoded], dim=-1), labels, **collected)

    def check_images(
        self,
        pixel_values: torch.Tensor | None,
        image_embeds: torch.Tensor | None,
        pixel_mask: torch.Tensor | None = None,
    ) -> None:
        """Raise a ValueError unless one of both is `[batch, images, ...]` with `config.num_images`, as is the mask."""
        images = only_one({"pixel_values": pixel_values, "image_embeds": image_embeds}, FORMS_OF_SEVERAL)
        if images.shape[1] != self.config.num_images:
            raise ValueError(f"{images.shape[1]} images per text; the model takes {self.config.num_images}")
        if pixel_mask is not None and pixel_mask.shape[:2] != images.shape[:2]:
            batch, number = images.shape[:2]
            raise ValueError(f"pixel_mask of shape {tuple(pixel_mask.shape)}; allowed: ({batch}, {number}, ...)")


class AnswerHead(FusionHead):
    """A classifier over answers, of which several may be right (VQAv2)."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy with soft scores `[batch, labels]`, summed over labels, as stock ViLT has it."""
        check_tensor("labels", labels, logits.shape, floating=True)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


class RankHead(FusionHead):
    """A score of how well a text fits an image."""

    rank_output: nn.Module

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, 1]`."""
        return self.rank_output(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Not defined: a score alone has no loss, as in stock ViLT."""
        raise NotImplementedError("labels: one score has no loss; compare the scores of several candidates")


def name_entailment_labels(config: Any) -> None:
    """Name the labels of a configuration that names none; a ValueError if there are not three."""
    if config.num_labels != len(ENTAILMENT_LABELS):
        raise ValueError(f"num_labels={config.num_labels}; visual entailment has {len(ENTAILMENT_LABELS)} labels")
    _name_labels(config, ENTAILMENT_LABELS)


def check_several_images(config: Any) -> None:
    """Name the two labels of a configuration that names none, as NLVR2's; a ValueError if it can't take its images."""
    if config.num_images < 1:
        raise ValueError(f"num_images={config.num_images}; allowed: at least 1")
    if config.modality_type_vocab_size <= config.num_images:
        raise ValueError(
            f"modality_type_vocab_size={config.modality_type_vocab_size}; {config.num_images} images and a text need "
            f"{config.num_images + 1}"
        )
    if config.num_labels == len(TRUTH_LABELS):
        _name_labels(config, TRUTH_LABELS)


def _name_labels(config: Any, labels: tuple[str, ...]) -> None:
    if set(config.id2label.values()) == {f"LABEL_{number}" for number in range(config.num_labels)}:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}


def classifier(channels: int, width: int, labels: int) -> nn.Sequential:
    """The form that all classifiers of ViLT and METER have, with stock ViLT's parameter names."""
    return nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, labels))
