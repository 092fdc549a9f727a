"""A training that diverges ends with an error, a readable log, and no model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.training.run import CHECKPOINTS, LOG, RESULTS, prepare


def strict_lines(path) -> list[dict]:
    """The lines of a log, which have to be JSON without `NaN` and `Infinity`."""

    def refuse(constant: str):
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_the_command_stops_at_the_step_and_writes_no_model(checkpoint, tmp_path):
    output = tmp_path / "run"
    given = ("--output", str(output), "--pretrained", checkpoint(), "--data", "pocket_scenes", "--cpu", "--warmup", "0")
    steps = ("--max-steps", "8", "--batch-size", "2", "--log-every", "1", "--learning-rate", "1e30")
    result = CliRunner().invoke(app, ["train", *given, *steps], catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: step 2: loss is nan")
    assert "task_loss is nan" in result.stderr
    assert "lower learning_rate" in result.stderr
    assert [line["step"] for line in strict_lines(output / LOG)] == [1]
    assert not (output / RESULTS).exists()
    assert not list(output.rglob("*.safetensors"))


def test_a_parameter_that_is_not_finite_is_never_saved(options, tmp_path):
    run = prepare(options(), tmp_path)
    with torch.no_grad():
        run.trainer.model.classifier[3].bias[1] = math.inf
    message = r"step 0: 1 of \d+ parameters are not finite, the first is classifier\.3\.bias"
    with pytest.raises(FloatingPointError, match=message):
        run.trainer.save_model(str(tmp_path / "model"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_last_update_that_breaks_a_parameter_ends_the_run(options, tmp_path):
    run = prepare(options(max_steps=1), tmp_path)
    run.trainer.add_callback(Breaking())
    with pytest.raises(FloatingPointError, match="step 1: 1 of"):
        run.train()
    assert [line["step"] for line in strict_lines(tmp_path / LOG)] == [1]
    assert not list((tmp_path / CHECKPOINTS).rglob("*.safetensors"))
    assert not (tmp_path / "model.safetensors").exists()


class Breaking(TrainerCallback):
    """Writes a NaN into a parameter after the optimiser's step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = math.nan


def test_an_evaluation_that_is_not_finite_ends_the_run(options, data_files, tmp_path):
    run = prepare(options("vqa", data=data_files["vqa"], eval_data=data_files["vqa"], eval_every=1), tmp_path)
    run.trainer.task.loss = lambda scores, targets: scores.sum() * (1 if scores.requires_grad else math.inf)
    with pytest.raises(FloatingPointError, match=r"step 1: eval_loss is -?(inf|nan)"):
        run.train()
    assert [line["step"] for line in strict_lines(tmp_path / LOG)] == [1]
