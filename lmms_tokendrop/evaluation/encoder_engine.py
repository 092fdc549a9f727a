"""Classify a batch of questions with a reduced encoder, and say what it cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from lmms_tokendrop.catalogue import RETRIEVAL, TWO_IMAGES
from lmms_tokendrop.evaluation.cost import SampleCost
from lmms_tokendrop.evaluation.heads import HEADS, head_of
from lmms_tokendrop.evaluation.prompts import Prompt, warn_of_positions
from lmms_tokendrop.images import with_a_patch

SHOWN_LABELS = 5


@dataclass(frozen=True)
class Classification:
    """What the head says of one question.

    Parameters
    ----------
    label
        The likeliest label.
    log_probabilities
        Of every label, float32.
    """

    label: str
    log_probabilities: torch.Tensor


class EncoderEngine:
    """A model with its processor.

    Parameters
    ----------
    model
        A reduced encoder with a head, in evaluation mode.
    processor
        Its processor, padding on the right.

    Attributes
    ----------
    head : str
        Key of `HEADS`.
    images : int
        Images that the head takes with a text.
    """

    def __init__(self, model: Any, processor: ProcessorMixin) -> None:
        self.model = model
        self.processor = processor
        self.head = head_of([type(model).__name__])
        self.images = model.config.num_images if self.head == TWO_IMAGES else 1
        self.labels: dict[str, int] = {}
        for number, label in model.config.id2label.items():
            self.labels.setdefault(normalized(label), number)

    @torch.inference_mode()
    def classify(self, prompts: Sequence[Prompt]) -> list[tuple[Classification, SampleCost]]:
        """Classify questions about as many images as the head takes; an answer is the same in every batch.

        Raises
        ------
        ValueError
            If the head has no labels.
        """
        if self.head == RETRIEVAL:
            raise ValueError(
                f"the checkpoint's head, {self.head}, ranks texts and has no answers; to answer it must have one of "
                f"{', '.join(head for head in HEADS if head != RETRIEVAL)}"
            )
        started = time.perf_counter()
        output = self.model(**self.inputs(prompts))
        log_probabilities = output.logits.float().log_softmax(-1).cpu()
        seconds = time.perf_counter() - started
        costs = sample_costs(self.model.reports(output), seconds)
        labels = [self.model.config.id2label[int(number)] for number in log_probabilities.argmax(-1)]
        answers = map(Classification, labels, log_probabilities)
        return list(zip(answers, costs, strict=True))

    def score(self, answer: Classification, candidates: Sequence[str]) -> list[tuple[float, bool]]:
        """Return the loss of each candidate, infinite if it is no label, and whether it is the likeliest label.

        Raises
        ------
        ValueError
            If no candidate is a label: then nothing could be told.
        """
        numbers = [self.labels.get(normalized(candidate)) for candidate in candidates]
        if all(number is None for number in numbers):
            raise ValueError(
                f"none of the candidates {list(candidates)} is a label; the checkpoint's head, {self.head}, has "
                f"{len(self.labels)}, such as {', '.join(list(self.labels)[:SHOWN_LABELS])}"
            )
        best = int(answer.log_probabilities.argmax())
        return [
            (math.inf, False) if number is None else (-answer.log_probabilities[number].item(), number == best)
            for number in numbers
        ]

    def squared(self, image: Image.Image) -> Image.Image:
        """Resize an image to the square that the model was made for, with the processor's filter."""
        side = self.model.config.image_size
        return image.resize((side, side), Image.Resampling(self.processor.image_processor.resample))

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for a batch of prompts, on its device and in its dtype."""
        pixels = self.pixel_inputs([image for prompt in prompts for image in prompt.images])
        if self.images > 1:
            pixels = {name: value.unflatten(0, (len(prompts), self.images)) for name, value in pixels.items()}
        ids = self.token_ids([prompt.text for prompt in prompts], [prompt.source for prompt in prompts])
        return {**self.text_inputs(ids), **pixels, "sample_seeds": torch.tensor([prompt.seed for prompt in prompts])}

    def token_ids(self, texts: Sequence[str], sources: Sequence[str]) -> list[list[int]]:
        """Tokenise texts. What is past the model's last position is cut off, with a warning that names the source."""
        limit, tokenizer = self.model.config.max_position_embeddings, self.processor.tokenizer
        ids = tokenizer(list(texts), verbose=False)["input_ids"]
        for place, (text, source) in enumerate(zip(texts, sources, strict=True)):
            if len(ids[place]) > limit:
                warn_of_positions(source, len(ids[place]), limit, "the text is cut off there")
                ids[place] = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return ids

    def text_inputs(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for tokenised texts, padded on the right."""
        rows = [torch.tensor(row) for row in ids]
        padding = self.processor.tokenizer.pad_token_id
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=padding).to(self.model.device),
            "attention_mask": pad_sequence(list(map(torch.ones_like, rows)), batch_first=True).to(self.model.device),
        }

    def pixel_inputs(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for images, on its device and in its dtype."""
        device, dtype, processor = self.model.device, self.model.dtype, self.processor.image_processor
        fitting = [with_a_patch(image, processor) for image in images]
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in processor(images=fitting, return_tensors="pt").items()
        }


def sample_costs(reports: Sequence[Any], seconds: float) -> list[SampleCost]:
    """Split a batch's cost over its rows.

    Parameters
    ----------
    reports
        What happened to the tokens, a report for each image of a row; their tokens are added up. Averages are over the
        layers that read text and image together; what a smaller image or a vision tower saves counts in the difference
        to the tokens before the reduction.
    seconds
        Time of the whole batch.
    """
    texts = reports[0].text_tokens[0]
    full, average, left = (
        torch.tensor(counts, dtype=torch.float64).sum(0).tolist()
        for counts in (
            [one.full_visual_tokens for one in reports],
            [one.average_visual_tokens for one in reports],
            [one.average_visual_tokens_release for one in reports],
        )
    )
    layers = list(zip(*(one.visual_tokens_per_layer for one in reports), strict=True))
    return [
        SampleCost(
            prompt_tokens=text + full[row],
            full_visual_tokens=full[row],
            visual_tokens=average[row],
            visual_tokens_release=left[row],
            output_tokens=1,
            seconds=seconds / len(texts),
            layers=[sum(counts[row] for counts in layer) for layer in layers],
        )
        for row, text in enumerate(texts)
    ]


def normalized(answer: str) -> str:
    """Return an answer as labels are compared: lower case, without outer spaces and full stop."""
    return answer.strip().lower().removesuffix(".").strip()
