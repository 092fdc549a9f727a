"""A resumed run is the uninterrupted run."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from pocket import curriculum, training
from pocket.curriculum import LlavaNextCurriculum
from pocket.llava_next import build_model
from pocket.losses import PocketTrainingModel
from pocket.training import learning_rate_factor, make_trainer


@pytest.fixture
def small_batches(monkeypatch):
    stages = tuple(dataclasses.replace(stage, images=2) for stage in curriculum.STAGES)
    monkeypatch.setattr(curriculum, "STAGES", stages)
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(training, "validate", lambda *args, **kwargs: {"accuracy": 0.0})


def run(folder, start, stop_after=None):
    model = PocketTrainingModel(build_model())
    options = {"seed": 0, "start": start, "max_steps": 2, "learning_rate": 1e-3, "lr_multipliers": {}, "bf16": False}
    trainer = make_trainer(model, folder, LlavaNextCurriculum(), **options)
    if stop_after is not None:
        trainer.add_callback(StopAt(stop_after))
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{start}") if start else None)
    lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return {line["step"]: line["answer"] for line in lines if "answer" in line}


class StopAt(training.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_resumed_run_equals_uninterrupted_run(tmp_path, small_batches):
    whole = run(tmp_path / "whole", 0)
    run(tmp_path / "parts", 0, stop_after=1)
    parts = run(tmp_path / "parts", 1)
    assert parts == whole
    final = [load_file(tmp_path / name / "checkpoint-2" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_learning_rate_warms_up_and_decays():
    factors = [learning_rate_factor(step, 1000) for step in range(1001)]
    assert factors[0] < 0.01
    assert max(factors) > 0.9
    assert factors[-1] == pytest.approx(0.02)
