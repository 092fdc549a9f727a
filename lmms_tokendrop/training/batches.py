"""From rows of data to batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import RandAugment
from transformers.utils import logging

from lmms_tokendrop.images import with_a_patch
from lmms_tokendrop.training.rows import Rows, named_row
from lmms_tokendrop.training.tasks import Example, TrainingTask

logger = logging.get_logger(__name__)


class Examples(Dataset):
    """The examples of a task in rows of data.

    What a task draws depends on the seed, the epoch and the index of a row only, so that a resumed run draws the same.

    Parameters
    ----------
    rows
        The data.
    task
        What to make of them.
    seed
        Seed of what is drawn.
    augment
        Change images by RandAugment (https://arxiv.org/abs/1909.13719).
    """

    def __init__(self, rows: Rows, task: TrainingTask, seed: int, augment: bool = False) -> None:
        self.rows = rows
        self.task = task
        self.seed = seed
        self.epoch = 0
        self.augment = RandAugment(num_ops=2, magnitude=9) if augment else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Example]:
        """The index and its example; a `RowError` names a row that cannot be read."""
        rng = np.random.default_rng([self.seed, self.epoch, index])
        with named_row(self.rows, index):
            example = self.task.example(self.rows, index, rng)
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(2**63)))
                example = replace(example, images=[self.augment(image) for image in example.images])
        return index, example


class Collator:
    """Make model inputs, with `labels` and `sample_seeds`, of examples.

    Several images of an example are stacked; several texts repeat its image.

    Parameters
    ----------
    processor
        Of the model.
    max_tokens
        Longest text; what exceeds it is cut off, with a warning that shows the first such text.
    side
        Resize images to a square of this side first; None: as the processor does it.
    """

    def __init__(self, processor: Any, max_tokens: int, side: int | None = None) -> None:
        self.processor = processor
        self.max_tokens = max_tokens
        self.side = side
        self.warned = False

    def __call__(self, batch: Sequence[tuple[int, Example]]) -> dict[str, torch.Tensor]:
        """Collate a batch."""
        examples = [example for _, example in batch]
        number, candidates = len(examples[0].images), len(examples[0].texts)
        images = [image for example in examples for image in example.images]
        if self.side is not None:
            resample = Image.Resampling(self.processor.image_processor.resample)
            images = [image.resize((self.side, self.side), resample) for image in images]
        images = [with_a_patch(image, self.processor.image_processor) for image in images]
        inputs = dict(self.processor.image_processor(images, return_tensors="pt"))
        if number > 1:
            inputs = {name: values.unflatten(0, (len(batch), number)) for name, values in inputs.items()}
        if candidates > 1:
            inputs = {name: values.repeat_interleave(candidates, dim=0) for name, values in inputs.items()}
        seeds = torch.tensor([index for index, _ in batch]).repeat_interleave(candidates)
        inputs.update(self.texts([text for example in examples for text in example.texts]))
        return {**inputs, "sample_seeds": seeds, "labels": torch.stack([example.target for example in examples])}

    def texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenize texts, padded to the longest."""
        tokenizer = self.processor.tokenizer
        encoded = tokenizer(list(texts), verbose=False)
        if max(map(len, encoded["input_ids"])) > self.max_tokens:
            if not self.warned:
                first = next(
                    text for text, ids in zip(texts, encoded["input_ids"], strict=True) if len(ids) > self.max_tokens
                )
                logger.warning(
                    f"texts of more than {self.max_tokens} tokens are cut off, the first is {first[:60]!r}..."
                )
                self.warned = True
            encoded = tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        return dict(tokenizer.pad(encoded, return_tensors="pt"))
