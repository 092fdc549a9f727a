"""Training data that is drawn: pocket scenes with a question each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmms_tokendrop.pocket.questions import Question, ask
from lmms_tokendrop.pocket.scenes import Scene, make_scene, render
from lmms_tokendrop.pocket.task_data import TRAINING_SEEDS, VALIDATION_SEEDS
from lmms_tokendrop.training.options import POCKET_SCENES

EVALUATION_ROWS = 1000


class PocketRows:
    """Scenes, each with a question; a row depends on the seed and its index only, and nothing is stored.

    Parameters
    ----------
    length
        Number of rows.
    seed
        Seed of the training rows.
    held_out
        Rows for evaluation instead, the same for every seed. Training, evaluation and the bundled tasks never share
        seeds.
    """

    source = POCKET_SCENES

    def __init__(self, length: int, seed: int, held_out: bool = False) -> None:
        self.length = length
        self.seeds = (VALIDATION_SEEDS, 0) if held_out else (TRAINING_SEEDS, seed)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Picture, question and answer."""
        scene, question = self.draw(index)
        return {"image": render(scene), "question": question.text, "answers": question.answer}

    def value(self, column: str, index: int) -> str:
        """The text of a question, or its answer."""
        _, question = self.draw(index)
        return {"question": question.text, "answers": question.answer}[column]

    def stored(self) -> Iterator[dict[str, Any]]:
        """Nothing is."""
        return iter(())

    def draw(self, index: int) -> tuple[Scene, Question]:
        """The scene and the question of a row."""
        rng = np.random.default_rng([*self.seeds, index])
        asked: list[Question] = []
        while not asked:
            scene = make_scene(rng)
            asked = ask(scene, rng, 1)
        return scene, asked[0]
