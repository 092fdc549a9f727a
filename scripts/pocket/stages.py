"""The parts of a curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUESTIONS_PER_IMAGE = 10


@dataclass(frozen=True)
class Stage:
    """A part of a curriculum.

    Attributes
    ----------
    name
        Shown in the log.
    until
        First step that no longer belongs to it.
    cells, objects, weights
        Kind of scene and of questions.
    images
        Pictures per step.
    auxiliary
        Weight of the loss on the patches.
    guidance
        Weight of the attention guidance.
    questions
        Most questions about each picture.
    easy_vqa
        Share of the steps that take easy-VQA pictures instead.
    """

    name: str
    until: float
    cells: int
    objects: tuple[int, int]
    weights: dict[str, float]
    images: int
    auxiliary: float
    guidance: float
    questions: int = QUESTIONS_PER_IMAGE
    easy_vqa: float = 0.0


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Find the stage that a step belongs to.

    Parameters
    ----------
    stages
        The curriculum.
    step
        Number of optimiser steps already made.

    Returns
    -------
    Stage
    """
    return next(stage for stage in stages if step < stage.until)
