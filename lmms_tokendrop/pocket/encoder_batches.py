"""Training batches of the pocket encoders: pictures with several questions each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lmms_tokendrop.pocket.encoder_labels import LABELS
from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.scenes import Scene, render_array

PATCHES_PER_CELL = 2
LABEL_NUMBERS = {label: number for number, label in enumerate(LABELS)}
ABSENT = -1
"""Label of a question that is only there to fill up a picture's list."""


class Tokens:
    """Words to numbers, without the cost of a tokenizer.

    Parameters
    ----------
    vocabulary
        Number of each word.
    begin, end, padding
        Numbers of the special tokens around a question and behind it.
    """

    def __init__(self, vocabulary: Mapping[str, int], begin: int, end: int, padding: int) -> None:
        self.vocabulary = vocabulary
        self.begin, self.end, self.padding = begin, end, padding

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Tokens:
        """Take the vocabulary of a tokenizer that knows every word of the questions."""
        begin, end = tokenizer("")["input_ids"]
        return cls(tokenizer.get_vocab(), begin, end, tokenizer.pad_token_id)

    def encode(self, text: str) -> list[int]:
        """Encode a question as the processor's tokenizer does."""
        words = text.replace("?", " ?").split()
        return [self.begin, *(self.vocabulary[word] for word in words), self.end]


def patch_grid(scene: Scene) -> np.ndarray:
    """Colour, shape, texture and digit under every patch, 0 for none.

    Parameters
    ----------
    scene
        A scene.

    Returns
    -------
    numpy.ndarray
        [patches, 4].
    """
    grid = np.zeros((scene.cells, scene.cells, 4), np.int64)
    for cell, item in scene.objects.items():
        grid[cell] = np.array(item) + 1
    return grid.repeat(PATCHES_PER_CELL, axis=0).repeat(PATCHES_PER_CELL, axis=1).reshape(-1, 4)


def encoder_batch(
    scenes: Sequence[Scene], asked: Sequence[Sequence[Question]], tokens: Tokens
) -> dict[str, torch.Tensor]:
    """Make a batch of pictures of one size, each with its list of questions.

    Parameters
    ----------
    scenes
        Scenes of equal size.
    asked
        Their questions.
    tokens
        Encodes them.

    Returns
    -------
    dict
        `images` [batch, 3, size, size] uint8, `input_ids` and `attention_mask` [batch, questions, length], `labels`
        [batch, questions], `shown` [batch, questions, patches] (which patches a question is about), `patch_labels`
        [batch, patches, 4].
    """
    most = max(len(questions) for questions in asked)
    encoded = [[tokens.encode(question.text) for question in questions] for questions in asked]
    longest = max(len(row) for rows in encoded for row in rows)
    ids = np.full((len(scenes), most, longest), tokens.padding)
    labels = np.full((len(scenes), most), ABSENT)
    side = scenes[0].cells
    shown = np.zeros((len(scenes), most, side, side), bool)
    for number, (questions, rows) in enumerate(zip(asked, encoded, strict=True)):
        for place, (question, row) in enumerate(zip(questions, rows, strict=True)):
            ids[number, place, : len(row)] = row
            labels[number, place] = LABEL_NUMBERS[question.answer]
            for cell in question.cells:
                shown[number, place][cell] = True
    shown = shown.repeat(PATCHES_PER_CELL, axis=2).repeat(PATCHES_PER_CELL, axis=3)
    ids_tensor = torch.from_numpy(ids)
    # a filling question keeps its first token, so that no row of attention is empty
    mask = ids_tensor != tokens.padding
    mask[..., 0] = True
    return {
        "images": torch.from_numpy(np.stack([render_array(scene) for scene in scenes])).permute(0, 3, 1, 2),
        "input_ids": ids_tensor,
        "attention_mask": mask,
        "labels": torch.from_numpy(labels),
        "shown": torch.from_numpy(shown.reshape(len(scenes), most, -1)),
        "patch_labels": torch.from_numpy(np.stack([patch_grid(scene) for scene in scenes])),
    }
