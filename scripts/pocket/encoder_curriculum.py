"""What the pocket encoders are trained on at each step: from small scenes with easy questions to the task itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from lmms_tokendrop.pocket.questions import EASY_WEIGHTS, QUESTION_WEIGHTS, ask
from lmms_tokendrop.pocket.scenes import DENSE_CELLS, DENSE_OBJECTS, make_scene
from pocket.encoder_batches import PATCHES_PER_CELL, encoder_batch
from pocket.stages import Stage, stage_at

TRAINING_SEEDS = 4
"""First number of every training seed; the tasks and other trainings use others."""
VALIDATION_SEEDS = 5
VALIDATION_QUESTIONS = 1000


VILT_STAGES = (
    Stage("small, one attribute", 800, 3, (2, 4), EASY_WEIGHTS, 32, 1.0, 0.2),
    Stage("small, all questions", 1400, 3, (3, 6), QUESTION_WEIGHTS, 32, 0.3, 0.2),
    Stage("large, few objects", 1700, DENSE_CELLS, (4, 8), QUESTION_WEIGHTS, 16, 0.3, 0.2),
    Stage("task", 2700, DENSE_CELLS, DENSE_OBJECTS, QUESTION_WEIGHTS, 16, 0.1, 0.2),
    Stage("task, one question", float("inf"), DENSE_CELLS, DENSE_OBJECTS, QUESTION_WEIGHTS, 32, 0.1, 0.0, questions=1),
)
"""Several questions share a picture at first, which is cheaper; at the end the model reads one, as in use."""

METER_STAGES = (
    Stage("small, one attribute", 500, 3, (2, 4), EASY_WEIGHTS, 32, 1.0, 0.2),
    Stage("small, all questions", 850, 3, (3, 6), QUESTION_WEIGHTS, 32, 0.3, 0.2),
    Stage("large, few objects", 1050, DENSE_CELLS, (4, 8), QUESTION_WEIGHTS, 16, 0.3, 0.2),
    Stage("task", 1700, DENSE_CELLS, DENSE_OBJECTS, QUESTION_WEIGHTS, 16, 0.1, 0.2),
    Stage("task, one question", float("inf"), DENSE_CELLS, DENSE_OBJECTS, QUESTION_WEIGHTS, 32, 0.1, 0.0, questions=1),
)


def stage_batch(
    rng: np.random.Generator, stage: Stage, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, Any], list[list[str]]]:
    """Make a batch of a stage.

    Parameters
    ----------
    rng
        Source of randomness.
    stage
        Kind of scenes and questions.
    tokenizer
        Encodes the questions.

    Returns
    -------
    batch : dict
        Inputs of `encoder_losses.EncoderTrainingModel`.
    types : list of list of str
        Type of each question.
    """
    scenes = [make_scene(rng, stage.cells, stage.objects) for _ in range(stage.images)]
    asked = [ask(scene, rng, stage.questions, stage.weights) for scene in scenes]
    corner = rng.integers(0, PATCHES_PER_CELL * (DENSE_CELLS - stage.cells) + 1, size=2)
    weights = {"auxiliary_weight": torch.tensor(stage.auxiliary), "guidance_weight": torch.tensor(stage.guidance)}
    batch = {**encoder_batch(scenes, asked, tokenizer), "corner": torch.from_numpy(corner), **weights}
    return batch, [[question.type for question in questions] for questions in asked]


class EncoderStream(IterableDataset):
    """Endless batches from a given step on; each depends on nothing but the seed and the step.

    Parameters
    ----------
    stages
        The curriculum.
    tokenizer
        Encodes the questions.
    seed
        Seed of the run.
    start
        First step; the number of steps already made when resuming.
    """

    def __init__(
        self, stages: tuple[Stage, ...], tokenizer: PreTrainedTokenizerBase, seed: int, start: int = 0
    ) -> None:
        self.stages = stages
        self.tokenizer = tokenizer
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[dict[str, Any]]:
        step = self.start
        while True:
            rng = np.random.default_rng([TRAINING_SEEDS, self.seed, step])
            yield stage_batch(rng, stage_at(self.stages, step), self.tokenizer)[0]
            step += 1


class EncoderCurriculum:
    """The stages of a pocket encoder; see `training.Curriculum`.

    Parameters
    ----------
    stages
        The curriculum; the last one is the task.
    tokenizer
        Encodes the questions.
    """

    def __init__(self, stages: tuple[Stage, ...], tokenizer: PreTrainedTokenizerBase) -> None:
        self.stages = stages
        self.tokenizer = tokenizer

    def stream(self, seed: int, start: int) -> EncoderStream:
        """Endless batches from a step on."""
        return EncoderStream(self.stages, self.tokenizer, seed, start)

    def stage_name(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return stage_at(self.stages, step).name

    def task_name(self) -> str:
        """Name of the last stage."""
        return self.stages[-1].name

    def validation(self, stage_name: str) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """About 1,000 questions, one per picture in the last stage and several in the others."""
        stage = next(entry for entry in self.stages if entry.name == stage_name)
        rng = np.random.default_rng([VALIDATION_SEEDS, 0])
        for _ in range(-(-VALIDATION_QUESTIONS // (stage.images * stage.questions))):
            batch, types = stage_batch(rng, stage, self.tokenizer)
            yield batch, [kind for row in types for kind in row]
