"""Tiny checkpoints for every task, small data of every schema, and options of short runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_meter import save_tiny_meter
from tiny_models import tiny_image
from tiny_vilt import save_tiny_vilt

from lmms_tokendrop.pocket.vocabulary import COLOR_NAMES, DIGIT_NAMES, GROUND_NAMES, SHAPE_NAMES, TEXTURE_NAMES, YES_NO
from lmms_tokendrop.training.options import TrainingOptions

POCKET_ANSWERS = [*COLOR_NAMES, *SHAPE_NAMES, *TEXTURE_NAMES, *DIGIT_NAMES, *GROUND_NAMES, *YES_NO]
LABELS = {"vqa": POCKET_ANSWERS, "snli-ve": ["contradiction", "neutral", "entailment"], "nlvr2": ["False", "True"]}
HEADS = {"vqa": "question_answering", "nlvr2": "two_images", "retrieval": "retrieval"}
SAVERS = {"vilt": save_tiny_vilt, "meter": save_tiny_meter}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """Return ``make(task="vqa", seed=0, architecture="vilt") -> str``: an encoder with a task's head, built once."""
    folders: dict[tuple, str] = {}

    def make(task: str = "vqa", seed: int = 0, architecture: str = "vilt") -> str:
        key = (task, seed, architecture)
        if key not in folders:
            names = LABELS.get(task, ["fits"])
            labels = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
            head = HEADS.get(task, "entailment" if architecture == "meter" else "question_answering")
            folder = tmp_path_factory.mktemp(f"training_{architecture}_{task}")
            folders[key] = str(SAVERS[architecture](folder, head, seed=seed, **labels))
        return folders[key]

    return make


@pytest.fixture
def options(checkpoint) -> Callable[..., TrainingOptions]:
    """Return ``make(task="vqa", **changes)``: two steps on pocket scenes with PuMer unless changed."""

    def make(task: str = "vqa", **changes) -> TrainingOptions:
        given = {
            "task": task,
            "method": "pumer",
            "pretrained": checkpoint(task, architecture=changes.get("architecture", "vilt")),
            "data": "pocket_scenes",
            "max_steps": 2,
            "batch_size": 4,
            "log_every": 1,
            "cpu": True,
            **changes,
        }
        return TrainingOptions(**{name: value for name, value in given.items() if value is not None})

    return make


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the datasets library caches out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture(scope="session")
def data_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a parquet file for each task, eight rows of the schema that the lmms-eval tasks read."""
    from datasets import Dataset, Features, Image, List, Value

    images = [tiny_image(40, 32, seed=number) for number in range(16)]
    text, picture = Value("string"), Image()
    schemas = {
        "vqa": {"image": picture, "question": text, "answers": List({"answer": text})},
        "snli-ve": {"image": picture, "hypothesis": text, "label": text},
        "nlvr2": {"left_image": picture, "right_image": picture, "sentence": text, "label": text},
        "retrieval": {"image": picture, "caption": List(text)},
    }
    rows = {
        "vqa": [
            {
                "image": images[number],
                "question": "what colour is the square ?",
                "answers": [{"answer": "Red."}] * number + [{"answer": "no idea"}] * (10 - number),
            }
            for number in range(8)
        ],
        "snli-ve": [
            {"image": images[number], "hypothesis": "a red circle", "label": LABELS["snli-ve"][number % 3]}
            for number in range(8)
        ],
        "nlvr2": [
            {
                "left_image": images[number],
                "right_image": images[number + 8],
                "sentence": "two red squares",
                "label": ["True", "False"][number % 2],
            }
            for number in range(8)
        ],
        "retrieval": [
            {"image": images[number], "caption": [f"picture {word} {number}" for word in ("a", "b")]}
            for number in range(8)
        ],
    }
    folder = tmp_path_factory.mktemp("data")
    files = {task: str(folder / f"{task}.parquet") for task in rows}
    for task, file in files.items():
        Dataset.from_list(rows[task], features=Features(schemas[task])).to_parquet(file)
    return files
