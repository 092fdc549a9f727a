"""The tasks load without a network, and their data are what the generator makes."""

import importlib.util
from hashlib import md5
from pathlib import Path

import datasets
import numpy as np
import pytest
from lmms_eval.tasks import TaskManager, get_task_dict

from lmms_tokendrop.benchmark.budget_rows import QUESTIONS
from lmms_tokendrop.pocket.scenes import render_array
from lmms_tokendrop.pocket.task_data import CHOICE_SEEDS, QUESTIONS_PER_IMAGE, task_scenes

TASKS = Path(__file__).resolve().parents[2] / "tasks"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    manager = TaskManager("ERROR", include_path=str(TASKS), include_defaults=False)
    yield get_task_dict(["pocket_scenes", "pocket_scenes_choice"], manager)
    patch.undo()


def test_data_equal_the_generator(tasks):
    documents = tasks["pocket_scenes"].test_docs()
    position = 0
    for scene, asked in task_scenes():
        assert np.array_equal(np.asarray(documents[position]["image"]), render_array(scene))
        for question in asked:
            document = tasks["pocket_scenes"].eval_docs_no_media[position]
            assert (document["question"], document["answer"]) == (question.text, question.answer)
            assert (document["type"], tuple(document["choices"])) == (question.type, question.choices)
            position += 1
        if position >= 40 * QUESTIONS_PER_IMAGE:
            break
    assert len(documents) == 2000


def test_file_is_small():
    assert (TASKS / "pocket_scenes" / "pocket_scenes.parquet").stat().st_size < 6_000_000


def test_choices_contain_the_answer(tasks):
    task = tasks["pocket_scenes_choice"]
    for document in task.eval_docs_no_media:
        choices = task.doc_to_choice(document)
        assert len(set(choices)) == len(choices)
        assert choices[task.doc_to_target(document)] == document["answer"]


def test_generated_answers_are_scored(tasks):
    task = tasks["pocket_scenes"]
    document = task.eval_docs_no_media[0]
    assert task.process_results(document, [f" {document['answer'].upper()}. "]) == {"accuracy": 1.0}
    assert task.process_results(document, [f"not {document['answer']}"]) == {"accuracy": 0.0}
    assert task.process_results(document, [""]) == {"accuracy": 0.0}
    assert task.higher_is_better() == {"accuracy": True}


def test_multiple_choice_takes_the_smallest_loss(tasks):
    task = tasks["pocket_scenes_choice"]
    document = task.eval_docs_no_media[0]
    right = task.doc_to_target(document)
    losses = [(1.0 if index == right else 2.0, False) for index in range(len(document["choices"]))]
    assert task.process_results(document, losses) == {"acc": 1.0}


def test_limit(tasks):
    assert len(list(tasks["pocket_scenes"].doc_iterator(limit=5))) == 5


def load_task(name: str):
    manager = TaskManager("ERROR", include_path=str(TASKS), include_defaults=False)
    return get_task_dict([name], manager)[name]


def picture_digests(task, questions: range) -> set[bytes]:
    return {md5(np.asarray(task.test_docs()[number]["image"]).tobytes()).digest() for number in questions}


@pytest.mark.parametrize("name", ["pocket_scenes", "easy_vqa"])
def test_defaults_are_chosen_on_pictures_that_no_reported_question_shares(name):
    reported, validation = load_task(name), load_task(f"{name}_validation")
    assert len(validation.test_docs()) == QUESTIONS
    assert picture_digests(reported, range(QUESTIONS)).isdisjoint(picture_digests(validation, range(QUESTIONS)))


def test_validation_scenes_are_asked_as_the_task_s_are():
    task, (scene, asked) = load_task("pocket_scenes_validation"), next(task_scenes(seeds=CHOICE_SEEDS))
    document = task.test_docs()[0]
    assert np.array_equal(np.asarray(document["image"]), render_array(scene))
    assert (document["question"], document["answer"]) == (asked[0].text, asked[0].answer)
    assert task.process_results(document, [asked[0].answer]) == {"accuracy": 1.0}


def test_easy_vqa_without_the_package_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "easy_vqa" else real(name, *rest)
    )
    with pytest.raises(ModuleNotFoundError, match="pip install easy-vqa"):
        load_task("easy_vqa")


def test_easy_vqa_reads_the_package(monkeypatch, tmp_path):
    package = tmp_path / "easy_vqa.py"
    image = tmp_path / "7.png"
    package.write_text(
        "def get_test_questions():\n    return ['What color is the shape?'], ['teal'], [7]\n"
        f"def get_test_image_paths():\n    return {{7: {str(image)!r}}}\n"
    )
    from PIL import Image

    Image.new("RGBA", (64, 64), "teal").save(image)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "easy_vqa", raising=False)
    task = load_task("easy_vqa")
    document = task.test_docs()[0]
    assert isinstance(task.dataset, datasets.DatasetDict)
    assert task.doc_to_text(document) == "what color is the shape?"
    assert task.doc_to_target(document) == "teal"
    assert task.doc_to_visual(document)[0].mode == "RGB"
    assert "image" not in task.eval_docs_no_media[0]
    assert task.process_results(document, ["teal"]) == {"accuracy": 1.0}
