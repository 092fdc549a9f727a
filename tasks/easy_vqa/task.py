"""The public easy-VQA test questions, read from the installed `easy-vqa` package."""

from __future__ import annotations

import importlib.util
from typing import Any

import datasets
from lmms_eval.api.task import ConfigurableTask

from lmms_tokendrop.images import to_rgb


def load_questions() -> datasets.Dataset:
    """Read the test half of the `easy-vqa` package.

    Returns
    -------
    datasets.Dataset
        Columns image, image_id, question, answer.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    """
    if importlib.util.find_spec("easy_vqa") is None:
        raise ModuleNotFoundError(
            "the easy_vqa task reads its data from a package: pip install easy-vqa", name="easy_vqa"
        )
    import easy_vqa

    questions, answers, numbers = easy_vqa.get_test_questions()
    paths = easy_vqa.get_test_image_paths()
    columns = {
        "image": [paths[number] for number in numbers],
        "image_id": numbers,
        "question": [question.lower() for question in questions],
        "answer": answers,
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


class EasyVqa(ConfigurableTask):
    """Task whose data come from a package instead of a dataset file.

    Parameters
    ----------
    config
        What the YAML file says.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Build the dataset.

        Parameters
        ----------
        dataset_kwargs
            Unused.
        """
        questions = load_questions()
        self.dataset = datasets.DatasetDict({"test": questions})
        self.dataset_no_image = datasets.DatasetDict({"test": questions.remove_columns("image")})


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Picture of a question."""
    return [to_rgb(doc["image"])]


def doc_to_text(doc: dict[str, Any]) -> str:
    """Text of a question."""
    return doc["question"]


def doc_to_target(doc: dict[str, Any]) -> str:
    """Right answer."""
    return doc["answer"]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Score one generated answer: 1 if it equals the right one, case and a final full stop aside."""
    given = results[0].strip().rstrip(".").strip().lower()
    return {"accuracy": float(given == doc["answer"].lower())}
