"""Small local tasks and a short way to run lmms-eval on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lmms_results import evaluator
from tiny_models import tiny_image

TASKS = Path(__file__).parent / "tasks"

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
    from datasets import Dataset, Features, Image, List, Value

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


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the test tasks and their data: one, two or no images per question, of several sizes."""
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tiny", DOCUMENTS)


@pytest.fixture
def documents(task_folder: Path) -> list[dict]:
    """Return the rows of the test tasks, images decoded."""
    from datasets import load_dataset

    return list(load_dataset("parquet", data_files={"test": str(task_folder / "tiny.parquet")}, split="test"))


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the datasets library caches out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture
def evaluate(task_folder: Path) -> Callable[..., dict]:
    """Return what `lmms_results.evaluator` returns for the test tasks."""
    return evaluator(task_folder)


@pytest.fixture(scope="session")
def single_image_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same tasks for classifiers: one image per question, answers among their labels."""
    return write_tasks(tmp_path_factory.mktemp("tasks") / "single", SINGLE_IMAGE_DOCUMENTS)


@pytest.fixture
def classify(single_image_tasks: Path) -> Callable[..., dict]:
    """Return what `evaluate` returns, for the tasks with one image per question."""
    return evaluator(single_image_tasks)
