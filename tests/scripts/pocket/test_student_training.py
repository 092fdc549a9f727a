"""Students learn what their teacher was trained on, and what it answers."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocket.encoder_batches import ABSENT
from pocket.encoder_curriculum import stage_batch
from pocket.recipes import HEAD_RATE, RECIPES, SETTINGS, STUDENT_RATE, student_recipe
from pocket.student_training import (
    STAGES,
    StudentCurriculum,
    StudentTrainingModel,
    Teacher,
    load_bundled,
    model_inputs,
    patch_source,
)
from pocket.training import make_trainer

ENCODERS = list(STAGES)
PUMER = {"vilt": {"method": "pumer", "preset": "vilt-vqav2"}, "meter": {"method": "pumer", "preset": "meter-vqav2"}}
DYNAMICVIT = {"method": "dynamicvit", "keep_ratio": 0.5}


def batch_of(architecture, images=3, seed=3):
    tokenizer = student_recipe(architecture, PUMER[architecture], distilled=False).processor.tokenizer
    stage = dataclasses.replace(STAGES[architecture][0], images=images)
    return stage_batch(np.random.default_rng(seed), stage, tokenizer)[0]


def student(architecture, reduction):
    return StudentTrainingModel(architecture, load_bundled(architecture, reduction))


@pytest.fixture(scope="module")
def teachers():
    return {name: Teacher(name) for name in ENCODERS}


@pytest.mark.parametrize("architecture", ENCODERS)
def test_inputs_are_those_of_the_processor(architecture):
    batch = batch_of(architecture)
    processor = student_recipe(architecture, PUMER[architecture], distilled=False).processor
    texts = processor.tokenizer.batch_decode(batch["input_ids"][:, 0], skip_special_tokens=True)
    pictures = [image.permute(1, 2, 0).numpy() for image in batch["images"]]
    expected = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    for name, value in model_inputs(architecture, batch).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_the_losses_are_what_they_say(architecture, teachers):
    batch = batch_of(architecture)
    expected = teachers[architecture].say(batch, 0, 0, with_states=False)["expected"]
    batch["labels"][0, 0] = ABSENT
    training = student(architecture, PUMER[architecture])
    loss, parts = training(**batch, expected=expected)
    logits = training.model(**model_inputs(architecture, batch)).logits[1:]
    labels = batch["labels"][1:, 0]
    answer = F.cross_entropy(logits, labels)
    label_wise = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).float(), reduction="sum")
    divergence = F.kl_div(logits.log_softmax(-1), expected[1:], log_target=True, reduction="batchmean")
    assert parts["answer"].item() == pytest.approx(answer.item(), rel=1e-4)
    assert parts["label_wise"].item() == pytest.approx(label_wise.item() / len(labels), rel=1e-4)
    assert parts["kl"].item() == pytest.approx(divergence.item(), rel=1e-4)
    total = answer + 0.3 * label_wise / len(labels) + 0.1 * parts["patch"] + divergence
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_method_that_trains_softly_has_its_own_losses(architecture, teachers):
    batch = batch_of(architecture)
    said = teachers[architecture].say(batch, 0, 1, with_states=True)
    loss, parts = student(architecture, DYNAMICVIT).train()(**batch, **said)
    total = parts["answer"] + 0.3 * parts["label_wise"] + 0.1 * parts["patch"]
    total = total + 0.5 * parts["kl"] + 0.5 * parts["tokens"] + 2 * parts["ratio"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert parts["ratio"] > 0
    assert parts["tokens"] > 0


@pytest.mark.parametrize("architecture", ENCODERS)
def test_patches_are_all_there_where_they_are_read(architecture):
    training, batch = student(architecture, PUMER[architecture]), batch_of(architecture)
    with training.patch_states() as found:
        reduced = training.model(**model_inputs(architecture, batch))
    before = {"vilt": batch["input_ids"].shape[-1], "meter": 0}[architecture] + 1  # text, and the image's CLS
    assert found[0].shape[1] == before + 144
    expected = training.patch_loss(found[0][:, before:], batch["patch_labels"])
    assert training(**batch)[1]["patch"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert reduced.report.left[-1].counts()[1].max() < 145


@pytest.mark.parametrize(
    ("reduction", "layer"),
    [
        ({"method": "none"}, 3),
        ({"method": "pumer", "layers": [2, 5, 8]}, 1),
        ({"method": "pumer", "layers": [7, 8, 9]}, 3),
        ({"method": "tome", "r": 4}, None),
        ({"method": "smres", "image_size": 72}, None),
    ],
    ids=str,
)
def test_vilt_reads_patches_before_the_first_leave(reduction, layer):
    model = load_bundled("vilt", reduction)
    assert patch_source(model) is (None if layer is None else model.vilt.encoder.layer[layer])


def test_a_teacher_is_asked_once_about_a_batch(teachers, monkeypatch):
    tokenizer = student_recipe("vilt", PUMER["vilt"], distilled=False).processor.tokenizer
    asked = []
    monkeypatch.setattr(teachers["vilt"], "_run", lambda batch: asked.append(batch) or (torch.zeros(1), None))
    curriculum = StudentCurriculum("vilt", tokenizer, lambda: teachers["vilt"], with_states=False)
    for start in (20, 21):
        batches = iter(curriculum.stream(7, start))
        assert "expected" in next(batches)
        next(batches)
    assert len(asked) == 3


@pytest.mark.parametrize("name", SETTINGS)
def test_heads_learn_faster_than_the_encoder(name, tmp_path):
    recipe = RECIPES[name]()
    trainer = make_trainer(
        recipe.build(0),
        tmp_path,
        recipe.curriculum,
        seed=0,
        start=0,
        max_steps=1,
        learning_rate=recipe.learning_rate,
        lr_multipliers=recipe.lr_multipliers,
        bf16=False,
    )
    rates = {id(weight): group["lr"] for group in trainer.create_optimizer().param_groups for weight in group["params"]}
    fast = ("model.classifier", "patch_head", "model.vilt.token_reducer")
    for parameter, weight in trainer.model.named_parameters():
        factor = HEAD_RATE if parameter.startswith(fast) else 1
        assert rates[id(weight)] == pytest.approx(STUDENT_RATE * factor)
