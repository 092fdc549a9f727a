"""Documents unlike the others, through lmms-eval and every architecture: an answer, or an error that names them."""

import io
import json
import logging
import shutil

import numpy as np
import pytest
from lmms_results import answers, evaluator
from PIL import Image
from tiny_models import tiny_image
from tiny_tasks import SINGLE_IMAGE_DOCUMENTS, write_tasks
from transformers import AutoProcessor

from lmms_tokendrop.evaluation.prompts import continuation_ids, errors_name

ARCHITECTURES = ("llava_next", "vilt", "meter")


@pytest.fixture(params=ARCHITECTURES)
def model(request, tiny_checkpoint, fusion_checkpoint) -> dict:
    """Return name and checkpoint of an unreduced model."""
    checkpoint = tiny_checkpoint("llama") if request.param == "llava_next" else fusion_checkpoint(request.param)
    return {"model": f"{request.param}_full", "pretrained": checkpoint}


@pytest.fixture
def run(model, tmp_path):
    """Return `run(documents, task) -> results` on documents as `write_tasks` takes them."""

    def run(documents, task="tiny_generate", **options) -> dict:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return evaluator(write_tasks(folder, documents))(tasks=task, **{**model, **options})

    return run


def test_pictures_of_any_shape_are_answered_alone_and_together(run):
    sizes = [(4000, 7), (7, 4000), (1, 1), (1, 4000), (48, 32)]
    documents = [("what colour is the square ?", [size], ["red", "green", "no"]) for size in sizes]
    alone, together = run(documents), run(documents, batch_size=5)
    assert answers(alone, "tiny_generate") == answers(together, "tiny_generate")
    assert alone["throughput"]["avg_visual_tokens"] > 1


def test_a_task_may_give_one_picture_instead_of_a_list(run):
    listed, single = run(SINGLE_IMAGE_DOCUMENTS), run(SINGLE_IMAGE_DOCUMENTS, "tiny_single")
    assert answers(listed, "tiny_generate") == answers(single, "tiny_single")


def test_a_placeholder_for_each_picture_changes_no_answer(run):
    marked = [(f"<image>\n{question}", *rest) for question, *rest in SINGLE_IMAGE_DOCUMENTS]
    plain, marked = run(SINGLE_IMAGE_DOCUMENTS), run(marked)
    assert answers(plain, "tiny_generate") == answers(marked, "tiny_generate")


@pytest.mark.parametrize("text", ["<image> or <image> ?", "<image><image><image>"])
def test_other_numbers_of_placeholders_are_refused(run, text):
    documents = [*SINGLE_IMAGE_DOCUMENTS[:2], (text, [(32, 32)], ["yes", "no", "red"])]
    message = rf"^tiny_generate: document 2: the text has {text.count('<image>')} x '<image>', .* none, or 1, one per"
    with pytest.raises(ValueError, match=message):
        run(documents, batch_size=2)


def test_pictures_that_are_not_there_are_named(run, model):
    documents = [*SINGLE_IMAGE_DOCUMENTS[:1], ("what does <image> stand for ?", [], ["yes", "no", "red"])]
    message = "the text has 1 x '<image>', .* there are no images" if "llava" in model["model"] else "0 images; .* 1, "
    with pytest.raises(ValueError, match=f"^tiny_generate: document 1: {message}"):
        run(documents)


def cut_short(image: Image.Image) -> dict:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"path": None, "bytes": file.getvalue()[:-100]}


def below_0(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.full(image.size, -1, dtype="int32"))


@pytest.mark.parametrize(("spoil", "message"), [(cut_short, "truncated"), (below_0, "values from -1")])
def test_a_picture_that_cannot_be_read_is_named(run, monkeypatch, spoil, message):
    def picture(*size, seed):  # the first of document 2 has the seed 20
        image = tiny_image(*size, seed=seed)
        return spoil(image) if seed == 20 else image

    monkeypatch.setattr("tiny_tasks.tiny_image", picture)
    with pytest.raises(ValueError, match=f"^tiny_generate: document 2: .*{message}"):
        run(SINGLE_IMAGE_DOCUMENTS)


def with_positions(checkpoint, folder, positions):
    """Copy a LLaVA-NeXT checkpoint, with a number of positions."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("task", ["tiny_generate", "tiny_choice"])
def test_text_past_the_last_position_is_a_warning_that_names_the_document(run, model, tmp_path_factory, task, caplog):
    documents = [*SINGLE_IMAGE_DOCUMENTS[:2], ("red " * 150, [(48, 32)], ["yes", "no", "red"])]
    if "llava" in model["model"]:
        model["pretrained"] = with_positions(model["pretrained"], tmp_path_factory.mktemp("short") / "model", 150)
    with caplog.at_level(logging.WARNING, logger="lmms_tokendrop"):
        run(documents, task, batch_size=3)
    [message] = [
        record.getMessage() for record in caplog.records if record.name.startswith("lmms_tokendrop.evaluation")
    ]
    assert message.startswith(f"{task}: document 2: ")
    assert "positions" in message


def test_candidates_without_a_likelihood_are_named(evaluate, tiny_checkpoint, tmp_path):
    documents = [("which ?", [(32, 32)], ["yes", "no", "red"]), ("which ?", [(32, 32)], ["yes", "an <image>", "red"])]
    with pytest.raises(ValueError, match=r"^tiny_choice: document 1: the text has 1 x '<image>'"):
        evaluator(write_tasks(tmp_path / "tasks", documents))(
            "llava_next_full", "tiny_choice", pretrained=tiny_checkpoint("llama")
        )
    with pytest.raises(ValueError, match="the candidate answer '' has no tokens"):
        continuation_ids(AutoProcessor.from_pretrained(tiny_checkpoint("llama")), "USER: red ? ASSISTANT:", "")


def test_a_fault_of_a_tasks_code_keeps_its_traceback_and_names_the_document():
    with pytest.raises(KeyError) as caught, errors_name("task: document 7"):
        {}["image"]
    assert caught.value.__notes__ == ["This was task: document 7."]
