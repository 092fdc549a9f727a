"""The tasks: what a row of data becomes, the loss of its scores, and how right they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch.nn import functional
from transformers.utils import logging

from lmms_tokendrop.evaluation.encoder_engine import normalized
from lmms_tokendrop.training.losses import soft_target_loss
from lmms_tokendrop.training.rows import Rows, named_row
from lmms_tokendrop.training.texts import answer_scores, checked_text, written_answers, written_captions

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from lmms_tokendrop.training.options import TrainingOptions

CHECKED_QUESTIONS = 500

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Example:
    """What a model gets to see.

    Parameters
    ----------
    images
        One, or as many as the head takes.
    texts
        One, or the candidates of a retrieval query.
    target
        What the loss compares with; see the task.
    """

    images: Sequence[Image]
    texts: Sequence[str]
    target: torch.Tensor


class TrainingTask(ABC):
    """A kind of question.

    Parameters
    ----------
    config
        Of the model that is trained.
    options
        Of the run.

    Attributes
    ----------
    columns
        Columns that the data must have, and the names they may have, the first that exists counting.
    labels
        Labels of a new head; None: as many as the user names, or a score.
    config_changes
        What a new head changes in the model's configuration.
    """

    columns: ClassVar[dict[str, tuple[str, ...]]]
    image_columns: ClassVar[tuple[str, ...]] = ("image",)
    labels: ClassVar[tuple[str, ...] | None] = None
    config_changes: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: PretrainedConfig, options: TrainingOptions) -> None:
        self.options = options

    def check(self, rows: Rows) -> None:
        """Raise a ValueError if the first row, or what is no image in any stored row, cannot be used."""
        for index, row in enumerate(rows.stored()):
            with named_row(rows, index):
                self.check_row(row)
        with named_row(rows, 0):
            self.example(rows, 0, np.random.default_rng(0))

    @abstractmethod
    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise a ValueError if what is no image in a row cannot be used."""

    @abstractmethod
    def example(self, rows: Rows, index: int, rng: np.random.Generator) -> Example:
        """What is trained on in a row; `rng` is for what is drawn anew in every epoch."""

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """The scores `[batch, choices]` in the model's logits, float32."""
        return logits.float()

    def loss(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Loss of scores `[batch, choices]`; here cross entropy with `targets [batch]`."""
        return functional.cross_entropy(scores, targets)

    def accuracy(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How right each row of a batch is, `[batch]`, from 0 to 1."""
        return (scores.argmax(-1) == targets).float()


class QuestionAnswering(TrainingTask):
    """VQAv2: a question about an image; soft scores of every answer; an answer is as right as its score says.

    A column of answers has a text (score 1), or the answers of all annotators as texts or as VQAv2's dicts: one of
    them scores 0.3, two 0.6, three 0.9, more 1. Answers that are no label are left out, so a question may have none.
    """

    columns: ClassVar = {
        "image": ("image",),
        "question": ("question",),
        "answers": ("answers", "multiple_choice_answer", "answer"),
    }

    def __init__(self, config: PretrainedConfig, options: TrainingOptions) -> None:
        super().__init__(config, options)
        self.size = config.num_labels
        self.numbers: dict[str, int] = {}
        for number in range(config.num_labels):
            self.numbers.setdefault(normalized(config.id2label[number]), number)

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise a ValueError if there is no question or no answer."""
        checked_text("question", row["question"])
        written_answers(row["answers"])

    def check(self, rows: Rows) -> None:
        """Count questions, taken evenly, without an answer that is a label; a ValueError if all are such."""
        super().check(rows)
        number = min(len(rows), CHECKED_QUESTIONS)
        indices = [at * len(rows) // number for at in range(number)]
        answers = [list(answer_scores(rows.value("answers", index))) for index in indices]
        without = sum(not any(answer in self.numbers for answer in given) for given in answers)
        if without == number:
            raise ValueError(
                f"none of the answers to {number} questions, such as {answers[0][:1]}, is one of the model's "
                f"{self.size} labels, such as {next(iter(self.numbers))!r}"
            )
        if without:
            logger.warning(
                f"{without} of {number} questions looked at have no answer among the model's labels; every label is "
                "wrong for such a question"
            )

    def example(self, rows: Rows, index: int, rng: np.random.Generator) -> Example:
        """Question, image and soft scores `[labels]`."""
        row = rows[index]
        target = torch.zeros(self.size)
        for answer, score in answer_scores(row["answers"]).items():
            if answer in self.numbers:
                target[self.numbers[answer]] = score
        return Example([row["image"]], [row["question"]], target)

    def loss(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy with soft scores, summed or averaged over labels as the option `vqa_loss` says."""
        return soft_target_loss(scores, targets, self.options.vqa_loss)

    def accuracy(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The score of the likeliest answer."""
        return targets.gather(1, scores.argmax(-1, keepdim=True))[:, 0]


class LabelTask(TrainingTask):
    """A task whose rows have one label each.

    Attributes
    ----------
    numbers
        Number of each label, by its text in lower case.
    """

    numbers: Mapping[str, int]

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise a ValueError if there is no text or the label is unknown."""
        checked_text("text", row["text"])
        self.target(row["label"])

    def target(self, label: Any) -> torch.Tensor:
        """The number of a label; a ValueError names what is allowed."""
        number = self.numbers.get(normalized(str(label)))
        if number is None:
            raise ValueError(f"label={shortened(label)}; allowed: {', '.join(map(repr, self.numbers))}")
        return torch.tensor(number)


class VisualEntailment(LabelTask):
    """SNLI-VE: does an image contradict a sentence, entail it, or neither."""

    columns: ClassVar = {
        "image": ("image",),
        "text": ("hypothesis", "sentence2", "sentence"),
        "label": ("gold_label", "label"),
    }
    labels = ("contradiction", "neutral", "entailment")

    def __init__(self, config: PretrainedConfig, options: TrainingOptions) -> None:
        super().__init__(config, options)
        self.numbers = {normalized(label): number for number, label in config.id2label.items()}
        if set(self.numbers) != set(self.labels):
            raise ValueError(f"pretrained: its labels are {sorted(self.numbers)}; snli-ve needs {list(self.labels)}")

    def example(self, rows: Rows, index: int, rng: np.random.Generator) -> Example:
        """Image, sentence and number of the label."""
        row = rows[index]
        return Example([row["image"]], [row["text"]], self.target(row["label"]))


class TwoImages(LabelTask):
    """NLVR2: is a sentence true of two images."""

    columns: ClassVar = {
        "left": ("left_image", "image0", "left"),
        "right": ("right_image", "image1", "right"),
        "text": ("sentence", "question"),
        "label": ("label", "answer"),
    }
    image_columns = ("left", "right")
    labels = ("False", "True")
    config_changes: ClassVar = {"num_images": 2, "modality_type_vocab_size": 3}

    def __init__(self, config: PretrainedConfig, options: TrainingOptions) -> None:
        super().__init__(config, options)
        named = {normalized(label): number for number, label in config.id2label.items()}
        if set(named) != {"false", "true"}:
            raise ValueError(f"pretrained: its labels are {sorted(named)}; nlvr2 needs {list(self.labels)}")
        self.numbers = {**named, "0": named["false"], "1": named["true"]}

    def example(self, rows: Rows, index: int, rng: np.random.Generator) -> Example:
        """Both images, the sentence, and the number of the label; in data, 0 is false and 1 is true."""
        row = rows[index]
        return Example([row["left"], row["right"]], [row["text"]], self.target(row["label"]))


class Retrieval(TrainingTask):
    """Flickr30k, COCO: which of several captions belongs to an image. A row is an image with all of its captions.

    An example is an image with one of its captions, first, and captions of other images, each drawn anew in every
    epoch. Accuracy is the share of images whose own caption scores highest.
    """

    columns: ClassVar = {"image": ("image",), "captions": ("captions", "caption", "sentences")}

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise a ValueError if there is no caption."""
        written_captions(row["captions"])

    def example(self, rows: Any, index: int, rng: np.random.Generator) -> Example:
        """The image, its caption and the others, of stored rows."""
        if len(rows) <= self.options.negatives:
            raise ValueError(
                f"negatives={self.options.negatives}; the data has {len(rows)} images, and each needs others"
            )
        others = rng.choice(len(rows) - 1, size=self.options.negatives, replace=False)
        indices = [index, *(int(other) + (other >= index) for other in others)]
        return Example([rows[index]["image"]], [self._caption(rows, at, rng) for at in indices], torch.tensor(0))

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores of the candidates of each image, `[batch, 1 + negatives]`."""
        return logits.float().view(-1, 1 + self.options.negatives)

    def _caption(self, rows: Any, index: int, rng: np.random.Generator) -> str:
        with named_row(rows, index):
            captions = written_captions(rows.value("captions", index))
        return captions[rng.integers(len(captions))]


TASKS: dict[str, type[TrainingTask]] = {
    "vqa": QuestionAnswering,
    "snli-ve": VisualEntailment,
    "nlvr2": TwoImages,
    "retrieval": Retrieval,
}
