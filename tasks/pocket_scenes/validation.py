"""Scenes on which defaults are chosen: drawn by the package, of other seeds than those of the tested questions."""

from __future__ import annotations

from typing import Any

import datasets

from lmms_tokendrop.evaluation.generated_task import GeneratedTask
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import CHOICE_SEEDS, task_scenes


class PocketScenesValidation(GeneratedTask):
    """Scenes and questions as in the file of `pocket_scenes`."""

    def questions(self) -> datasets.Dataset:
        """Draw the scenes.

        Returns
        -------
        datasets.Dataset
            Columns image, image_id, type, question, answer, choices.
        """
        names = ("image", "image_id", "type", "question", "answer", "choices")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for number, (scene, asked) in enumerate(task_scenes(seeds=CHOICE_SEEDS)):
            picture = render(scene)
            for question in asked:
                row = (picture, number, question.type, question.text, question.answer, list(question.choices))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
        return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
