"""Classify a batch of questions with a reduced encoder, and say what it cost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import ProcessorMixin

from lmms_tokendrop.evaluation.cost import SampleCost
from lmms_tokendrop.evaluation.prompts import Prompt

logger = logging.getLogger(__name__)


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
        A reduced encoder with a classifier over answers, in evaluation mode.
    processor
        Its processor, padding on the right.
    """

    def __init__(self, model: Any, processor: ProcessorMixin) -> None:
        self.model = model
        self.processor = processor
        self.labels: dict[str, int] = {}
        for number, label in model.config.id2label.items():
            self.labels.setdefault(normalized(label), number)

    @torch.inference_mode()
    def classify(self, prompts: Sequence[Prompt]) -> list[tuple[Classification, SampleCost]]:
        """Classify questions about one image each; a question's answer is the same in every batch."""
        started = time.perf_counter()
        output = self.model(**self.inputs(prompts))
        log_probabilities = output.logits.float().log_softmax(-1).cpu()
        seconds = time.perf_counter() - started
        report = output.report
        answers = []
        for row, values in enumerate(log_probabilities):
            text, image = report.text_tokens[0][row], report.image_tokens[0][row]
            cost = SampleCost(
                prompt_tokens=text + image,
                full_visual_tokens=image,
                visual_tokens=report.average_image_tokens[row],
                visual_tokens_release=report.average_image_tokens_left[row],
                output_tokens=1,
                seconds=seconds / len(prompts),
            )
            answers.append((Classification(self.model.config.id2label[int(values.argmax())], values), cost))
        return answers

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
                f"none of the candidates {list(candidates)} is one of the model's {len(self.labels)} labels"
            )
        best = int(answer.log_probabilities.argmax())
        return [
            (math.inf, False) if number is None else (-answer.log_probabilities[number].item(), number == best)
            for number in numbers
        ]

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for a batch of prompts, on its device and in its dtype.

        Text past the model's last position is cut off, with a warning.
        """
        device, dtype = self.model.device, self.model.dtype
        limit = self.model.config.max_position_embeddings
        texts = [prompt.text for prompt in prompts]
        for text in texts:
            if len(self.processor.tokenizer(text, verbose=False)["input_ids"]) > limit:
                logger.warning(f"a question has more than {limit} tokens and was cut off: {text[:60]!r}...")
        inputs = self.processor(
            images=[prompt.images[0] for prompt in prompts],
            text=texts,
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        tensors = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }
        return {**tensors, "sample_seeds": torch.tensor([prompt.seed for prompt in prompts])}


def normalized(answer: str) -> str:
    """Return an answer as labels are compared: lower case, without outer spaces and full stop."""
    return answer.strip().lower().removesuffix(".").strip()
