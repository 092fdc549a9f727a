"""What encoders of text and image share at both ends: checks of what they are given, and heads."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..ops.eager_parts import on_host

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
TRUTH_LABELS = ("False", "True")
COLLECTED = ("hidden_states", "attentions", "report")
IMAGES = ("pixel_values", "pixel_mask", "image_embeds")


@dataclass
class FusionHeadOutput(SequenceClassifierOutput):
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

    report: Any = None


class FusionHead(PreTrainedModel):
    """A classifier on pooled states, for classes of models to inherit from.

    Attributes
    ----------
    encoder_class : type[PreTrainedModel]
        The encoder's class.
    pooled_tokens : int
        Tokens whose pooled states, side by side, the encoder gives.
    """

    encoder_class: ClassVar[type[PreTrainedModel]]
    pooled_tokens: ClassVar[int] = 1

    def __init__(self, config):
        PreTrainedModel.__init__(self, config)  # not that of a stock head, which follows in the bases
        setattr(self, self.base_model_prefix, self.encoder_class(config))
        self.build_head(self.pooled_tokens * config.hidden_size)
        self.post_init()

    def build_head(self, channels: int) -> None:
        """Make the classifier of pooled states `[batch, channels]`, in the form that all of ViLT and METER have."""
        self.num_labels, width = self.config.num_labels, self.head_width(channels)
        layers = nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, self.num_labels)
        self.classifier = nn.Sequential(*layers)

    def head_width(self, channels: int) -> int:
        """Channels inside the classifier of pooled states `[batch, channels]`."""
        return 2 * self.config.hidden_size

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of pooled states `[batch, channels]`."""
        return self.classifier(pooled)

    def reports(self, output: FusionHeadOutput) -> list:
        """What happened to the tokens of a forward pass, a report for each image of a row."""
        return [output.report]

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

    def run(self, labels: torch.Tensor | None, inputs: dict) -> FusionHeadOutput:
        """Encode one image per text, and judge both; inputs are the encoder's, by name."""
        encoded = self.base_model(**inputs, return_dict=True)
        return self.output(encoded.pooler_output, labels, **{name: getattr(encoded, name) for name in COLLECTED})


class SeveralImagesHead(FusionHead):
    """A classifier on the pooled states of a text beside each of several images."""

    def reports(self, output: FusionHeadOutput) -> list:
        """An entry per image."""
        return output.report

    def build_head(self, channels: int) -> None:
        """Make the classifier of pooled states `[batch, images * channels]`.

        Two labels of a configuration that names none are NLVR2's; a ValueError if it can't take its images.
        """
        number, types = self.config.num_images, self.config.modality_type_vocab_size
        if number < 1:
            raise ValueError(f"num_images={number}; allowed: at least 1")
        if types <= number:
            raise ValueError(f"modality_type_vocab_size={types}; {number} images and a text need {number + 1}")
        _name_labels(self.config, TRUTH_LABELS)
        super().build_head(number * channels)

    def run(self, labels: torch.Tensor | None, inputs: dict) -> FusionHeadOutput:
        """Encode the text with each image `[batch, images, ...]`; what the encoder did not collect is None.

        Raises
        ------
        ValueError
            If there are not exactly `config.num_images` images, in one form, or a mask is of other images.
        """
        images = {name: inputs.pop(name, None) for name in IMAGES}
        batch, number = only_one({name: images[name] for name in FORMS_OF_SEVERAL}, FORMS_OF_SEVERAL).shape[:2]
        mask = images["pixel_mask"]
        if number != self.config.num_images:
            raise ValueError(f"{number} images per text; the model takes {self.config.num_images}")
        if mask is not None and mask.shape[:2] != (batch, number):
            raise ValueError(f"pixel_mask of shape {tuple(mask.shape)}; allowed: ({batch}, {number}, ...)")
        encoded = []
        for number in range(self.config.num_images):
            image = {name: values[:, number] for name, values in images.items() if values is not None}
            encoded.append(self.base_model(**inputs, **image, image_token_type_idx=number + 1, return_dict=True))
        collected = {name: [entry[name] for entry in encoded] for name in COLLECTED if name in encoded[0]}
        return self.output(torch.cat([entry.pooler_output for entry in encoded], dim=-1), labels, **collected)


class AnswerHead(FusionHead):
    """A classifier over answers, of which several may be right (VQAv2)."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy with soft scores `[batch, labels]`, summed over labels, as stock ViLT has it."""
        check_tensor("labels", labels, logits.shape, floating=True)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


class EntailmentHead(FusionHead):
    """A classifier over contradiction, neutral and entailment (SNLI-VE)."""

    def build_head(self, channels: int) -> None:
        """Name the labels of a configuration that names none; a ValueError if there are not three."""
        number = self.config.num_labels
        if number != len(ENTAILMENT_LABELS):
            raise ValueError(f"num_labels={number}; visual entailment has {len(ENTAILMENT_LABELS)} labels")
        _name_labels(self.config, ENTAILMENT_LABELS)
        super().build_head(channels)


class RankHead(FusionHead):
    """A score of how well a text fits an image."""

    def build_head(self, channels: int) -> None:
        """Make the layer that scores pooled states `[batch, channels]`."""
        self.rank_output = nn.Linear(channels, 1)

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, 1]`."""
        return self.rank_output(pooled)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Not defined: a score alone has no loss, as in stock ViLT."""
        raise NotImplementedError("labels: one score has no loss; compare the scores of several candidates")


def _name_labels(config: Any, labels: tuple[str, ...]) -> None:
    """Name the labels of a configuration that has as many and names none."""
    if set(config.id2label.values()) == {f"LABEL_{number}" for number in range(len(labels))}:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}


FORMS = {
    "input_ids": "[batch, length]",
    "inputs_embeds": "[batch, length, channels]",
    "text_embeds": "[batch, length, channels]",
    "pixel_values": "[batch, 3, height, width]",
    "image_embeds": "[batch, length, channels]",
}
FORMS_OF_SEVERAL = {name: FORMS[name].replace("batch", "batch, images") for name in ("pixel_values", "image_embeds")}


def only_one(arguments: dict[str, torch.Tensor | None], forms: dict[str, str] = FORMS) -> torch.Tensor:
    """The one of some arguments that is given; a ValueError if none is, several are, or it has another form."""
    given = {name: value for name, value in arguments.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"You must specify exactly one of {' or '.join(arguments)}")
    [(name, value)] = given.items()
    if value.ndim != len(forms[name].split(",")):
        raise ValueError(f"{name} of shape {tuple(value.shape)}; allowed: {forms[name]}")
    return value


def check_tensor(name: str, value: Any, shape: tuple[int, ...], floating: bool | None = None) -> None:
    """Raise a ValueError unless an argument is a tensor of a shape, of floating point numbers or of whole ones."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} of type {type(value).__name__}; allowed: a tensor of shape {tuple(shape)}")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} of shape {tuple(value.shape)}; allowed: {tuple(shape)}")
    if floating is not None and value.is_floating_point() != floating:
        raise ValueError(f"{name} of {value.dtype}; allowed: {'floating point' if floating else 'whole'} numbers")


@on_host
def check_inputs(
    config: Any, texts: dict, images: dict, attention_mask: torch.Tensor | None, image_token_type_idx: int | None
) -> torch.Tensor:
    """The attention mask, all ones by default, of inputs that fit each other; else a ValueError says what is wrong.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's, for the number of its token types, of which the text has 0.
    texts, images : dict[str, torch.Tensor or None]
        By name, the arguments of which exactly one is to be given.
    attention_mask : torch.Tensor or None
        `[batch, length]`, 0 for padding, on the right.
    image_token_type_idx : int or None
        The image's token type.
    """
    text, image = only_one(texts), only_one(images)
    if len(text) != len(image):
        raise ValueError(f"{len(text)} texts and {len(image)} images; their numbers must be equal")
    last = config.modality_type_vocab_size - 1
    if image_token_type_idx is not None and not 0 <= image_token_type_idx <= last:
        raise ValueError(
            f"image_token_type_idx={image_token_type_idx}; allowed: 0 to {last}, the model's modality_type_vocab_size"
        )
    if attention_mask is None:
        return torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
    check_tensor("attention_mask", attention_mask, text.shape[:2])
    if not bool(attention_mask[:, 0].all()):
        raise ValueError("attention_mask: the text must be padded on the right; the head reads its first token")
    return attention_mask


def checked_seeds(sample_seeds: torch.Tensor | None, batch: int) -> torch.Tensor:
    """Seeds `[batch]`, 0 by default; a ValueError if there are not as many, or if they are not whole."""
    if sample_seeds is None:
        return torch.zeros(batch, dtype=torch.long)
    check_tensor("sample_seeds", sample_seeds, (batch,), floating=False)
    return sample_seeds


def check_text_length(length: int, limit: int) -> None:
    """Raise a ValueError if a text has more tokens than the model has learned positions."""
    if length > limit:
        raise ValueError(f"the text has {length} tokens; the model has positions for max_position_embeddings={limit}")
