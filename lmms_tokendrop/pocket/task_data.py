"""The held-out scenes and questions of the pocket_scenes tasks, and the seeds that keep them held out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmms_tokendrop.pocket.questions import Question, ask
from lmms_tokendrop.pocket.scenes import Scene, make_scene

TASK_SEEDS = 2
"""First number of the seed of every scene of the task; what else is drawn has others."""
TRAINING_SEEDS = 1
"""The same for training."""
VALIDATION_SEEDS = 3
"""The same for the evaluation during training."""
CHOICE_SEEDS = 6
"""The same for the scenes on which defaults are chosen."""
TASK_IMAGES = 250
QUESTIONS_PER_IMAGE = 8


def task_scenes(
    images: int = TASK_IMAGES, questions: int = QUESTIONS_PER_IMAGE, seeds: int = TASK_SEEDS
) -> Iterator[tuple[Scene, list[Question]]]:
    """Make the scenes of the task; each depends on its number only.

    Parameters
    ----------
    images
        Number of scenes.
    questions
        Questions about each.
    seeds
        First number of every scene's seed.

    Yields
    ------
    scene : Scene
    asked : list of Question
        Exactly `questions` of them.
    """
    for number in range(images):
        rng = np.random.default_rng([seeds, number])
        asked: list[Question] = []
        while len(asked) < questions:
            scene = make_scene(rng)
            asked = ask(scene, rng, questions)
        yield scene, asked
