"""What a run can start and learn from."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import ViltForQuestionAnswering

from lmms_tokendrop import catalogue
from lmms_tokendrop.training.checkpoints import check_same, load_student, load_teacher
from lmms_tokendrop.training.run import prepare


@pytest.mark.parametrize("name", ["no_such_folder", "nobody/no-such-model"])
def test_a_missing_teacher_fails_before_training(name, options, tmp_path):
    with pytest.raises(ValueError, match=f"teacher='{name}' cannot be loaded"):
        prepare(options(teacher=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_weights_fails(options, checkpoint, tmp_path):
    config = json.loads((tmp_path / checkpoint() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"teacher=.* cannot be loaded"):
        prepare(options(teacher=str(tmp_path)), tmp_path / "run")


def test_a_teacher_has_the_labels_of_its_student(options, checkpoint, tiny_vilt_checkpoint):
    given = options(teacher=str(tiny_vilt_checkpoint()))
    with pytest.raises(ValueError, match=r"has 10 labels and the student 33.*number 2: 'light blue' and 'blue'"):
        load_teacher(given, load_student(given))


def test_a_teacher_reads_the_ids_of_its_student(options, checkpoint, tmp_path):
    model = ViltForQuestionAnswering.from_pretrained(checkpoint())
    model.resize_token_embeddings(60)
    model.save_pretrained(tmp_path)
    given = options(teacher=str(tmp_path))
    with pytest.raises(ValueError, match=r"a vocabulary of 60 tokens and the student \d+; both"):
        load_teacher(given, load_student(given))


def test_a_teacher_is_unreduced(options, tmp_path):
    prepare(options(), tmp_path).train()
    given = options(teacher=str(tmp_path))
    with pytest.raises(ValueError, match=r"was trained with method 'pumer'; a teacher is unreduced"):
        load_teacher(given, load_student(given))


@pytest.mark.parametrize(
    ("task", "found", "message"),
    [
        ("vqa", "model", "missing_keys: classifier.*new_head starts a head anew"),
        ("nlvr2", "question_answering", "new_head starts a head anew"),
    ],
)
def test_a_checkpoint_without_the_head_is_an_error(task, found, message, options, tiny_vilt_checkpoint):
    given = options(task, pretrained=str(tiny_vilt_checkpoint(found)), data="folder")
    with pytest.raises(ValueError, match=message):
        load_student(given)


@pytest.mark.parametrize("new_head", [False, True])
@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vilt", r"layers=\[0, 98\]: layer 98 can't act in an encoder of 4 layers; allowed are 0 to 3$"),
        ("meter", r"layers=\[0, 98\]: layer 98 can't act in 4 pairs of layers; allowed are .* from 0 to 6$"),
    ],
)
def test_a_layer_that_the_encoder_lacks_is_named(options, checkpoint, architecture, message, new_head):
    given = options("nlvr2", architecture=architecture, data="folder", reduction={"layers": [0, 98]}, new_head=new_head)
    with pytest.raises(ValueError, match=message):
        load_student(given)


def test_another_architecture_is_an_error(options, tiny_checkpoint):
    with pytest.raises(ValueError, match=r"is of type 'llava_next'; architecture 'vilt' loads"):
        load_student(options(pretrained=str(tiny_checkpoint("llama"))))


def test_a_missing_start_is_an_error(options):
    with pytest.raises(ValueError, match="pretrained='no_such_folder' cannot be loaded"):
        load_student(options(pretrained="no_such_folder"))


@pytest.mark.parametrize("architecture", ["vilt", "meter"])
@pytest.mark.parametrize("task", ["vqa", "snli-ve", "nlvr2", "retrieval"])
def test_a_new_head_stands_on_the_encoder(
    task, architecture, options, tiny_vilt_checkpoint, tiny_meter_checkpoint, tmp_path
):
    (tmp_path / "answers.txt").write_text("yes\nno\ntwo words\n")
    labels = str(tmp_path / "answers.txt") if task == "vqa" else None
    makers = {"vilt": (tiny_vilt_checkpoint, "model"), "meter": (tiny_meter_checkpoint, "pretraining")}
    make, head = makers[architecture]
    start = make(head, modality_type_vocab_size=2)
    changes = {"architecture": architecture, "pretrained": str(start), "data": "folder", "new_head": True}
    model = load_student(options(task, **changes, labels=labels))
    prefix = f"{architecture}."
    saved = {name.removeprefix(prefix): value for name, value in load_file(start / "model.safetensors").items()}
    types = catalogue.architecture(architecture).token_types
    state = model.base_model.state_dict()
    assert torch.equal(state.pop(types), saved[types] if task != "nlvr2" else saved[types][[0, 1, 1]])
    assert all(torch.equal(value, saved[name]) for name, value in state.items() if "position_ids" not in name)
    wanted = {
        "vqa": ["yes", "no", "two words"],
        "snli-ve": ["contradiction", "neutral", "entailment"],
        "nlvr2": ["False", "True"],
    }
    if task in wanted:
        assert list(model.config.id2label.values()) == wanted[task]
        assert model.classifier[-1].out_features == len(wanted[task])


def test_retrieval_starts_from_the_pretrained_matching_score(options, tiny_meter_checkpoint):
    start = tiny_meter_checkpoint("pretraining")
    given = {"architecture": "meter", "data": "folder", "new_head": True}
    head = load_student(options("retrieval", **given, pretrained=str(start))).rank_output
    saved = load_file(start / "model.safetensors")
    assert torch.equal(head.weight, saved["itm_score.weight"][1:])
    assert torch.equal(head.bias, saved["itm_score.bias"][1:])
    other = tiny_meter_checkpoint("question_answering")
    drawn = load_student(options("retrieval", **given, pretrained=str(other))).rank_output
    assert not torch.equal(drawn.weight, head.weight)


def test_labels_can_come_from_a_checkpoint(options, checkpoint, tiny_vilt_checkpoint):
    given = options(pretrained=str(tiny_vilt_checkpoint("model")), new_head=True, labels=checkpoint())
    assert load_student(given).config.num_labels == 33
    with pytest.raises(ValueError, match="labels='nowhere': neither a file nor a checkpoint"):
        load_student(options(pretrained=str(tiny_vilt_checkpoint("model")), new_head=True, labels="nowhere"))


def test_predictors_of_a_checkpoint_are_kept(options, tmp_path):
    given = {"method": "dynamicvit", "reduction": {"layers": [1, 2]}}
    prepare(options(**given), tmp_path).train()
    again = load_student(options(**given, pretrained=str(tmp_path)))
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in again.state_dict().items():
        assert torch.equal(value, saved[name])


def test_the_image_size_of_a_recipe_is_that_of_the_checkpoint(options, tmp_path):
    assert prepare(options(image_size=32), tmp_path / "fits").options.image_size == 32
    with pytest.raises(ValueError, match=r"image_size=384: pretrained=.* was made for images of 32 pixels a side"):
        prepare(options(image_size=384), tmp_path / "differs")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"image_size": 64}, r"teacher='t' reads images of 64 pixels a side and the student 32"),
        ({"max_position_embeddings": 20}, r"teacher='t' reads texts of 20 tokens and the student 40"),
    ],
)
def test_a_teacher_reads_the_inputs_of_its_student(size, message, options):
    config = load_student(options()).config
    teacher = type(config)(**{**config.to_dict(), **size})
    with pytest.raises(ValueError, match=message):
        check_same(options(teacher="t"), config, teacher)


@pytest.mark.parametrize(
    ("argument", "file", "content"),
    [
        ("pretrained", "config.json", "{"),
        ("pretrained", "model.safetensors", "{"),
        ("pretrained", "model.safetensors", None),
        ("pretrained", "tokenizer.json", "{"),
        ("pretrained", "processor_config.json", "{"),
        ("teacher", "config.json", "{"),
        ("teacher", "model.safetensors", "{"),
    ],
)
def test_a_broken_checkpoint_is_named(argument, file, content, options, checkpoint, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint(), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ValueError, match=rf"^{argument}='{folder}' cannot be loaded: "):
        prepare(options(**{argument: str(folder)}), tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"yes\n", b"yes\nyes\n", b"\xff\xfe\x00"])
def test_files_of_labels_that_are_none(content, options, tiny_vilt_checkpoint, tmp_path):
    file = tmp_path / "answers.txt"
    file.write_bytes(content)
    start = str(tiny_vilt_checkpoint("model"))
    with pytest.raises(ValueError, match=rf"^labels='{file}' (has \d labels|cannot be loaded: )"):
        load_student(options(pretrained=start, new_head=True, labels=str(file)))
