"""The bundled encoders are complete, small, and answer."""

import json

import pytest
import torch
from transformers import AutoProcessor

from lmms_tokendrop.catalogue import architecture
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForQuestionAnswering
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering
from lmms_tokendrop.pocket.registry import WEIGHTS, pocket_path
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes
from pocket.encoder_labels import LABELS
from pocket.encoder_measuring import UNREDUCED, right_answers
from pocket.measuring import Item, training_facts
from pocket.recipes import RECIPES, STUDENT_STEPS

REDUCED = {"vilt": ViltTokenDropForQuestionAnswering, "meter": MeterTokenDropForQuestionAnswering}
FOLDERS = sorted(folder for family in REDUCED for folder in architecture(family).pocket.values())
STUDENTS = [folder for folder in FOLDERS if folder not in UNREDUCED]


@pytest.fixture(scope="module")
def items():
    return [
        Item(render(scene), question.text, question.answer, question.type, len(question.choices))
        for scene, asked in task_scenes(images=25)
        for question in asked
    ]


def loaded(folder):
    classes = UNREDUCED if folder in UNREDUCED else REDUCED
    model_class = classes[folder.split("_")[0]]
    return model_class.from_pretrained(WEIGHTS / folder, dtype=torch.float32, output_loading_info=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_weight_loads_and_the_file_is_small(folder):
    model, info = loaded(folder)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert (WEIGHTS / folder / "model.safetensors").stat().st_size <= 8_000_000


@pytest.mark.parametrize("architecture", UNREDUCED)
def test_the_unreduced_model_is_the_one_that_is_built(architecture):
    built = RECIPES[architecture]()
    folder = pocket_path(architecture, "none")
    model = UNREDUCED[architecture].from_pretrained(folder)
    assert list(model.config.id2label.values()) == LABELS
    assert {name: value.shape for name, value in model.named_parameters()} == {
        name: value.shape for name, value in built.build(0).model.named_parameters()
    }
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == built.processor.tokenizer.get_vocab()


@pytest.mark.parametrize("folder", FOLDERS)
def test_answers_held_out_questions(folder, items):
    processor = AutoProcessor.from_pretrained(WEIGHTS / folder)
    right = right_answers(loaded(folder)[0].eval(), processor, items)
    assert sum(right) / len(right) > 0.6


@pytest.mark.parametrize("folder", STUDENTS)
def test_a_student_says_how_it_was_trained(folder):
    config = json.loads((WEIGHTS / folder / "config.json").read_text())
    architecture, method = folder.split("_")
    assert config["token_reduction"]["method"] == method
    assert training_facts(WEIGHTS / folder)["steps"] == STUDENT_STEPS
    assert config["model_type"] == f"{architecture}_tokendrop"
    files = ({path.name for path in (WEIGHTS / name).iterdir()} for name in (folder, architecture))
    assert len(set(map(frozenset, files))) == 1
