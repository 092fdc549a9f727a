"""Fifty steps of every training, stopped half-way and taken up, give a model that loads."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from pocket import curriculum, training
from pocket.recipes import RECIPES

STEPS = 50


class StopAt(training.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step
        control.should_save = control.should_training_stop


@pytest.fixture
def small(monkeypatch):
    """Return ``recipe(name)`` with two pictures a step and nothing to validate on."""
    monkeypatch.setattr(training, "validate", lambda *args, **kwargs: {"accuracy": 0.0})
    few = tuple(dataclasses.replace(stage, images=2) for stage in curriculum.STAGES)
    monkeypatch.setattr(curriculum, "STAGES", few)

    def recipe(name):
        made = RECIPES[name]()
        if name != "llava_next":
            made.curriculum.stages = tuple(dataclasses.replace(stage, images=2) for stage in made.curriculum.stages)
        return made

    return recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_fifty_steps_are_taken_up_and_exported(name, small, tmp_path, monkeypatch):
    output, target = tmp_path / "run", tmp_path / "model"
    make_trainer = training.make_trainer

    def stopped(*args, **kwargs):
        trainer = make_trainer(*args, **kwargs)
        trainer.add_callback(StopAt(STEPS // 2))
        return trainer

    recipe = small(name)
    before = {key: value.half() for key, value in recipe.build(0).model.named_parameters()}
    with monkeypatch.context() as patch:
        patch.setattr("pocket.recipes.make_trainer", stopped)
        recipe.train(output, max_steps=STEPS)
    recipe.train(output, max_steps=STEPS)
    lines = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "stage" in line] == [25, 50]
    recipe.export(output, target)
    trained = load_file(target / "model.safetensors")
    model, info = type(recipe.build(0).model).from_pretrained(target, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(value.isfinite().all() for value in trained.values())
    changed = [not torch.equal(value.half(), before[key]) for key, value in model.named_parameters()]
    assert sum(changed) > len(changed) / 2


def test_a_resumed_run_draws_as_the_uninterrupted_one(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    make_trainer = training.make_trainer

    def stopped(*args, **kwargs):
        trainer = make_trainer(*args, **kwargs)
        trainer.add_callback(StopAt(1))
        return trainer

    small("vilt_dynamicvit").train(tmp_path / "whole", max_steps=3, bf16=False)
    with monkeypatch.context() as patch:
        patch.setattr("pocket.recipes.make_trainer", stopped)
        small("vilt_dynamicvit").train(tmp_path / "parts", max_steps=3, bf16=False)
    small("vilt_dynamicvit").train(tmp_path / "parts", max_steps=3, bf16=False)
    whole, parts = (load_file(tmp_path / name / "checkpoint-3" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_export_needs_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="has no checkpoint to export"):
        RECIPES["vilt"]().export(tmp_path, tmp_path / "model")
