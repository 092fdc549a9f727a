"""The public easy-VQA test questions, read from the installed `easy-vqa` package."""

from __future__ import annotations

import importlib.util
from typing import Any

import datasets

from lmms_tokendrop.evaluation.generated_task import GeneratedTask
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


class EasyVqa(GeneratedTask):
    """The test questions."""

    part = slice(None)
    """Which of them are asked."""

    def questions(self) -> datasets.Dataset:
        """Read them; columns as of :func:`load_questions`."""
        everything = load_questions()
        return everything.select(range(len(everything))[self.part])


class EasyVqaValidation(EasyVqa):
    """Questions on which defaults are chosen; none is about a picture of the reported ones, the first 2,000."""

    part = slice(5000, 7000)


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
