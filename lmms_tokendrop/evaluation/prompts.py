"""From lmms-eval's requests to the tensors that the model takes."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from PIL import Image
from transformers import ProcessorMixin

from lmms_tokendrop.images import to_rgb

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """One context about one document. Equal for all candidate answers to it.

    Parameters
    ----------
    task, split, doc_id
        Where the document is.
    context
        The text to put before the model.
    doc_to_visual
        Finds the document's images; None if there are none.
    """

    task: str
    split: str
    doc_id: int
    context: str
    doc_to_visual: Callable | None = field(default=None, compare=False)

    @classmethod
    def of(cls, request: Instance) -> Question:
        """Read a request of any type for a simple model."""
        context, _, *rest = request.args
        if not rest:  # the unconditional candidates of a mutual-information metric
            return cls(request.task_name, str(request.metadata.get("split")), int(request.doc_id), context)
        doc_to_visual, *_, doc_id, task, split = rest
        return cls(task, split, doc_id, context, doc_to_visual)

    @property
    def seed(self) -> int:
        """A number that depends on the document alone: not on its batch, its process or the order of requests."""
        return zlib.crc32(f"{self.task}/{self.split}/{self.doc_id}".encode())

    @property
    def source(self) -> str:
        """How errors and warnings name the document."""
        return f"{self.task}: document {self.doc_id}"


@dataclass(frozen=True)
class Prompt:
    """A question with its images, the chat template applied.

    Parameters
    ----------
    text
        The whole prompt, with one image placeholder per image.
    images
        RGB images in the order of the placeholders.
    seed
        Seed of random dropping.
    source
        How errors and warnings name it.
    """

    text: str
    images: tuple[Image.Image, ...]
    seed: int
    source: str = "a prompt"

    @property
    def size_key(self) -> tuple:
        """Sort key: prompts that need the same number of tokens come together, large ones first."""
        sizes = [image.size for image in self.images]
        return -sum(width * height for width, height in sizes), sizes, -len(self.text)


def is_padding(request: Instance) -> bool:
    """Whether lmms-eval added this request only to give every process the same number."""
    return bool(request.metadata.get("__padding_only__"))


def warn_of_positions(source: str, tokens: int, limit: int, consequence: str) -> None:
    """Say that a document has more tokens than the model has positions, and what happens then."""
    logger.warning(f"{source}: {tokens} tokens; the model has {limit} positions, and {consequence}")


@contextmanager
def errors_name(source: str) -> Iterator[None]:
    """Let what is wrong with a document say which it is: in the message of a data error, in a note to others.

    Parameters
    ----------
    source
        `Question.source` or `Prompt.source`.

    Raises
    ------
    ValueError
        In place of a `ValueError` or `OSError`.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{source}: {error}") from error
    except Exception as error:
        error.add_note(f"This was {source}.")
        raise


def load_images(visuals: Image.Image | Sequence[Any] | None) -> tuple[Image.Image, ...]:
    """Return a document's visuals, one or several, as RGB images; anything but images raises."""
    visuals = [visuals] if isinstance(visuals, Image.Image) else visuals or ()
    return tuple(to_rgb(visual) for visual in visuals)


def chat_prompt(processor: ProcessorMixin, context: str, images: Sequence[Image.Image]) -> str:
    """Apply the chat template to one user turn.

    The images come first, unless the context has a placeholder of its own for each of them.

    Raises
    ------
    ValueError
        If the context has another number of placeholders.
    """
    written = has_placeholders(context, processor.image_token, len(images))
    content = [{"type": "image"} for _ in images] if not written else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": context}]}]
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def has_placeholders(context: str, placeholder: str, images: int) -> bool:
    """Whether a context says where each of its images is; a ValueError if it says so for another number of them."""
    written = context.count(placeholder)
    if written not in (0, images):
        allowed = f"none, or {images}, one per image" if images else "none: there are no images"
        raise ValueError(f"the text has {written} x {placeholder!r}, which stands for an image; allowed: {allowed}")
    return written > 0


def collate(processor: ProcessorMixin, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    """Tokenise prompts, padded on the left, with their images and their seeds."""
    images = [image for prompt in prompts for image in prompt.images]
    inputs = processor(
        text=[prompt.text for prompt in prompts],
        images=images or None,
        padding=True,
        add_special_tokens=not starts_with_bos(processor, prompts[0].text),
        return_tensors="pt",
    )
    return {**inputs, "sample_seeds": torch.tensor([prompt.seed for prompt in prompts])}


def continuation_ids(processor: ProcessorMixin, prompt: str, continuation: str) -> list[int]:
    """Tokenise a candidate answer as it would be tokenised behind the prompt.

    Where the last token of the prompt would change, the candidate is tokenised alone: the prompt stays the same for
    every candidate.

    Raises
    ------
    ValueError
        If the candidate is empty or has an image placeholder.
    """
    has_placeholders(continuation, processor.image_token, 0)
    special = not starts_with_bos(processor, prompt)
    before = processor.tokenizer(prompt, add_special_tokens=special)["input_ids"]
    whole = processor.tokenizer(prompt + continuation, add_special_tokens=special)["input_ids"]
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole[len(before) :]
    alone = processor.tokenizer(continuation, add_special_tokens=False)["input_ids"]
    if not alone:
        raise ValueError(f"the candidate answer {continuation!r} has no tokens, and so no likelihood")
    return alone


def starts_with_bos(processor: ProcessorMixin, text: str) -> bool:
    """Whether the chat template wrote the first token itself, so that the tokenizer must not add another."""
    bos = processor.tokenizer.bos_token
    return bos is not None and text.startswith(bos)
