"""Task folders and a short way to run lmms-eval on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lmms_results import evaluator
from tiny_tasks import SINGLE_IMAGE_DOCUMENTS, write_tasks


@pytest.fixture(autouse=True)
def own_datasets_cache(datasets_cache: None) -> None:
    """All tests here load data sets."""


@pytest.fixture
def documents(task_folder: Path) -> list[dict]:
    """Return the rows of the test tasks, images decoded."""
    from datasets import load_dataset

    return list(load_dataset("parquet", data_files={"test": str(task_folder / "tiny.parquet")}, split="test"))


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
