"""What the pocket model is trained on at each step: from small scenes with easy questions to the task itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from lmms_tokendrop.images import to_rgb
from lmms_tokendrop.pocket.questions import EASY_WEIGHTS, QUESTION_WEIGHTS, ask
from lmms_tokendrop.pocket.scenes import DENSE_CELLS, DENSE_OBJECTS, make_scene, render_array
from lmms_tokendrop.pocket.sprites import CELL
from lmms_tokendrop.pocket.task_data import TRAINING_SEEDS, VALIDATION_SEEDS
from pocket.batches import Exchange, encode, encode_question, pack, patch_labels, stack_images
from pocket.stages import QUESTIONS_PER_IMAGE, Stage, stage_at

INDEPENDENT_SHARE = 0.75
EASY_VQA_SHARE = 0.1


STAGES = (
    Stage("small, one attribute", 700, 3, (2, 4), EASY_WEIGHTS, 32, 1.0, 0.2),
    Stage("small, all questions", 1100, 3, (3, 6), QUESTION_WEIGHTS, 32, 0.3, 0.2),
    Stage("large, few objects", 1300, DENSE_CELLS, (4, 8), QUESTION_WEIGHTS, 16, 0.3, 0.2, 10, EASY_VQA_SHARE),
    Stage("task", 2500, DENSE_CELLS, DENSE_OBJECTS, QUESTION_WEIGHTS, 16, 0.1, 0.2, 10, EASY_VQA_SHARE),
    Stage(
        "task, unguided",
        float("inf"),
        DENSE_CELLS,
        DENSE_OBJECTS,
        QUESTION_WEIGHTS,
        16,
        0.1,
        0.0,
        easy_vqa=EASY_VQA_SHARE,
    ),
)


def scene_batch(
    rng: np.random.Generator, stage: Stage, images: int, independent: bool
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Make a batch of scenes with questions.

    Parameters
    ----------
    rng
        Source of randomness.
    stage
        Kind of scenes.
    images
        Number of pictures.
    independent
        See `batches.pack`.

    Returns
    -------
    batch : dict
        Model inputs, targets, `patch_labels`.
    types : list of str
        Type of every question.
    """
    scenes = [make_scene(rng, stage.cells, stage.objects) for _ in range(images)]
    asked = [[encode_question(entry) for entry in ask(scene, rng, stage.questions, stage.weights)] for scene in scenes]
    batch, types = pack(asked, stage.cells * CELL, independent)
    batch.update(stack_images([render_array(scene) for scene in scenes]))
    batch["patch_labels"] = torch.from_numpy(np.stack([patch_labels(scene) for scene in scenes]))
    return batch, types


@cache
def easy_vqa_training_set() -> tuple[list[np.ndarray], list[list[Exchange]]]:
    """Read the training half of the `easy-vqa` package.

    Returns
    -------
    images : list of numpy.ndarray
        64 x 64 x 3.
    exchanges : list of list of Exchange
        The questions of each.
    """
    import easy_vqa
    from PIL import Image

    paths = easy_vqa.get_train_image_paths()
    asked: dict[int, list[Exchange]] = {number: [] for number in sorted(paths)}
    for question, answer, number in zip(*easy_vqa.get_train_questions(), strict=True):
        asked[number].append(encode(question.lower(), answer, (), "easy_vqa"))
    numbers = [number for number in asked if asked[number]]
    images = [np.asarray(to_rgb(Image.open(paths[number]))) for number in numbers]
    return images, [asked[number] for number in numbers]


def easy_vqa_batch(rng: np.random.Generator, images: int, independent: bool) -> dict[str, torch.Tensor]:
    """Make a batch of easy-VQA training pictures with their questions.

    Parameters
    ----------
    rng
        Source of randomness.
    images
        Number of pictures.
    independent
        See `batches.pack`.

    Returns
    -------
    dict
        Model inputs and targets.
    """
    pictures, exchanges = easy_vqa_training_set()
    chosen = rng.integers(len(pictures), size=images).tolist()
    asked = []
    for index in chosen:
        order = rng.permutation(len(exchanges[index]))[:QUESTIONS_PER_IMAGE]
        asked.append([exchanges[index][position] for position in order])
    batch, _ = pack(asked, pictures[0].shape[0], independent)
    batch.update(stack_images([pictures[index] for index in chosen]))
    return batch


def training_batch(seed: int, step: int) -> dict[str, Any]:
    """Make the batch of one training step; it depends on nothing but the two numbers.

    Parameters
    ----------
    seed
        Seed of the run.
    step
        Number of optimiser steps already made.

    Returns
    -------
    dict
        Inputs of `losses.PocketTrainingModel`.
    """
    rng = np.random.default_rng([TRAINING_SEEDS, seed, step])
    stage = stage_at(STAGES, step)
    independent = bool(rng.random() < INDEPENDENT_SHARE)
    if rng.random() < stage.easy_vqa:
        return easy_vqa_batch(rng, stage.images, independent)
    batch, _ = scene_batch(rng, stage, stage.images, independent)
    weights = {"auxiliary_weight": torch.tensor(stage.auxiliary), "guidance_weight": torch.tensor(stage.guidance)}
    return {**batch, **weights}


class TrainingStream(IterableDataset):
    """Endless batches from a given step on.

    Parameters
    ----------
    seed
        Seed of the run.
    start
        First step; set to the number of steps already made when resuming.
    """

    def __init__(self, seed: int, start: int = 0) -> None:
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[dict[str, Any]]:
        step = self.start
        while True:
            yield training_batch(self.seed, step)
            step += 1


class LlavaNextCurriculum:
    """The stages of the pocket LLaVA-NeXT; see `training.Curriculum`."""

    def stream(self, seed: int, start: int) -> TrainingStream:
        """Endless batches from a step on."""
        return TrainingStream(seed, start)

    def stage_name(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return stage_at(STAGES, step).name

    def task_name(self) -> str:
        """Name of the last stage."""
        return STAGES[-1].name

    def validation(self, stage_name: str) -> Iterator[tuple[dict[str, torch.Tensor], list[str]]]:
        """Four batches of 24 pictures."""
        stage = next(entry for entry in STAGES if entry.name == stage_name)
        rng = np.random.default_rng([VALIDATION_SEEDS, 0])
        for _ in range(4):
            yield scene_batch(rng, stage, 24, independent=True)
