"""Training batches of the pocket encoders: pictures with several questions each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.scenes import Scene, render_array
from pocket.encoder_labels import LABELS

PATCHES_PER_CELL = 2
LABEL_NUMBERS = {label: number for number, label in enumerate(LABELS)}
ABSENT = -1
"""Label of a question that is only there to fill up a picture's list."""


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
    scenes: Sequence[Scene], asked: Sequence[Sequence[Question]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Make a batch of pictures of one size, each with its list of questions.

    Parameters
    ----------
    scenes
        Scenes of equal size.
    asked
        Their questions.
    tokenizer
        Encodes them.

    Returns
    -------
    dict
        `images` [batch, 3, size, size] uint8, `input_ids` and `attention_mask` [batch, questions, length], `labels`
        [batch, questions], `shown` [batch, questions, patches] (which patches a question is about), `patch_labels`
        [batch, patches, 4].
    """
    most = max(len(questions) for questions in asked)
    texts = [question.text for questions in asked for question in questions]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    owners = [(number, place) for number, questions in enumerate(asked) for place in range(len(questions))]
    rows, places = torch.tensor(owners).T
    ids = torch.full((len(scenes), most, encoded["input_ids"].shape[1]), tokenizer.pad_token_id)
    ids[rows, places] = encoded["input_ids"]
    # a question that only fills up keeps its first token, so that no row of attention is empty
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[..., 0] = True
    mask[rows, places] = encoded["attention_mask"].bool()
    labels = torch.full((len(scenes), most), ABSENT)
    side = scenes[0].cells
    shown = np.zeros((len(scenes), most, side, side), bool)
    for number, questions in enumerate(asked):
        for place, question in enumerate(questions):
            labels[number, place] = LABEL_NUMBERS[question.answer]
            for cell in question.cells:
                shown[number, place][cell] = True
    shown = shown.repeat(PATCHES_PER_CELL, axis=2).repeat(PATCHES_PER_CELL, axis=3)
    return {
        "images": torch.from_numpy(np.stack([render_array(scene) for scene in scenes])).permute(0, 3, 1, 2),
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "shown": torch.from_numpy(shown.reshape(len(scenes), most, -1)),
        "patch_labels": torch.from_numpy(np.stack([patch_grid(scene) for scene in scenes])),
    }
