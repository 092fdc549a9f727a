"""Small local tasks for lmms-eval, with pictures drawn for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value
from tiny_models import tiny_image

TASKS = Path(__file__).parent / "evaluation" / "tasks"

DOCUMENTS = [
    # question, sizes of the images, choices
    ("what colour is the square ?", [(60, 40)], ["red", "green", "light blue"]),
    ("is there a circle in the picture ?", [(30, 90)], ["yes", "no", "maybe not"]),
    ("which letter ?", [(50, 50), (90, 30)], ["A", "B", "C"]),
    ("answer with one word : yes or no", [], ["yes", "no", "D"]),
    ("what colour is the circle ? answer with one word", [(84, 84)], ["yellow", "blue", "red"]),
    ("no ?", [(40, 60)], ["yes", "no", "A B"]),
    ("what is in the picture ?", [(60, 40)], ["circle", "square", "a curious user"]),
]

SINGLE_IMAGE_DOCUMENTS = [
    ("what colour is the square ?", [(48, 32)], ["red", "green", "light blue"]),
    ("is there a circle in the picture ?", [(32, 64)], ["Yes.", "no", "not a label"]),
    ("how many ?", [(40, 40)], ["2", "blue", "no"]),
    ("what colour is the circle ? answer with one word", [(32, 32)], ["yellow", "blue", "red"]),
    ("no ?", [(40, 60)], ["yes", "no", "circle"]),
]


def write_tasks(folder: Path, documents: list[tuple]) -> Path:
    """Write the test tasks to ``folder``, with these questions, image sizes and choices as their data."""
    shutil.copytree(TASKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    rows = [
        {
            "question": question,
            "images": [tiny_image(*size, seed=10 * number + place) for place, size in enumerate(sizes)],
            "choices": choices,
            "answer": number % len(choices),
        }
        for number, (question, sizes, choices) in enumerate(documents)
    ]
    features = Features(
        {
            "question": Value("string"),
            "images": List(Image()),
            "choices": List(Value("string")),
            "answer": Value("int64"),
        }
    )
    Dataset.from_list(rows, features=features).to_parquet(folder / "tiny.parquet")
    return folder
