"""A run that was killed goes on as if it had not been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmms_tokendrop.training.run import CHECKPOINTS, LOG, RESULTS, TrainingRun, last_checkpoint, prepare
from lmms_tokendrop.training.run_log import RunLog

CLOCKS = {"seconds", "steps_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def curve(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


KILLED = """
import os, signal
from lmms_tokendrop.cli import app
from lmms_tokendrop.training.run_log import RunLog

write = RunLog.on_log

def on_log(self, args, state, control, **kwargs):
    write(self, args, state, control, **kwargs)
    if state.global_step == 28:
        os.kill(os.getpid(), signal.SIGKILL)

RunLog.on_log = on_log
app()
"""
"""The command, in a process that kills itself when the line of step 28 is written."""


def test_fifty_steps_of_distillation_resume_after_a_kill_with_the_same_curve(options, checkpoint, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = options(teacher=checkpoint(seed=1), max_steps=50, log_every=4, save_every=10, eval_every=25, eval_limit=16)
    prepare(given, whole).train()
    command = [sys.executable, "-c", KILLED, "train", "--output", str(killed), "--cpu"]
    for name in ("method", "pretrained", "teacher", "data", "max_steps", "batch_size", "log_every", "save_every"):
        command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    command += ["--eval-every", "25", "--eval-limit", "16"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == -signal.SIGKILL, finished.stderr[-2000:]
    assert curve(killed)[-1]["step"] == 28
    assert not (killed / RESULTS).exists()
    assert last_checkpoint(killed / CHECKPOINTS).endswith("-25")
    results = prepare(given, killed, resume=True).train()
    assert results["steps"] == 50
    assert curve(killed) == curve(whole)
    lines = curve(whole)
    trained = [line for line in lines if "loss" in line]
    assert {line["step"] for line in trained} == {*range(4, 50, 4), *range(10, 51, 10), 25}
    assert [line["step"] for line in lines if "eval_accuracy" in line] == [25, 50]
    assert all(line["kl_loss"] > 0 for line in trained)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def resumed_as_a_whole(given, folder: Path) -> TrainingRun:
    """Check that a run of six steps resumes from its third with the curve of a whole one; return the resumed run."""
    for name in ("whole", "parts"):
        prepare(given, folder / name).train()
    for path in (folder / "parts" / CHECKPOINTS / "checkpoint-6").iterdir():
        path.unlink()
    run = prepare(given, folder / "parts", resume=True)
    assert run.train()["steps"] == 6
    assert curve(folder / "parts") == curve(folder / "whole")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dynamicvit", "random"])
def test_random_draws_resume_too(method, options, tmp_path):
    resumed_as_a_whole(options(method=method, max_steps=6, save_every=3), tmp_path)


@pytest.mark.slow
def test_what_is_drawn_in_an_epoch_resumes_in_its_middle(options, data_files, tmp_path):
    drawn = {"negatives": 3, "rand_augment": True, "workers": 1}
    given = options("retrieval", data=data_files["retrieval"], max_steps=None, epochs=3, save_every=3, **drawn)
    run = resumed_as_a_whole(given, tmp_path)
    assert run.trainer.train_dataset.epoch == 2


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    for step, complete in ((10, True), (9, True), (100, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if complete:
            (folder / "trainer_state.json").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "none") is None


def test_a_run_is_neither_overwritten_nor_resumed_with_other_options(options, tmp_path):
    prepare(options(), tmp_path)
    with pytest.raises(ValueError, match=r"is not empty; resume the run"):
        prepare(options(), tmp_path)
    with pytest.raises(ValueError, match=r"other options: learning_rate=0\.5 instead of 0\.0001"):
        prepare(options(learning_rate=0.5), tmp_path, resume=True)
    older = tmp_path / "training_options.json"
    older.write_text(json.dumps({k: v for k, v in json.loads(older.read_text()).items() if k != "rand_augment"}))
    assert prepare(options(), tmp_path, resume=True).checkpoint is None


def test_a_run_whose_last_checkpoint_was_written_is_only_finished(options, data_files, tmp_path):
    given = options("vqa", data=data_files["vqa"], max_steps=3)
    first = prepare(given, tmp_path).train()
    lines = curve(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weights = load_file(tmp_path / CHECKPOINTS / "checkpoint-3" / "model.safetensors")
    again = prepare(given, tmp_path, resume=True).train()
    assert again["steps"] == first["steps"] == 3
    assert curve(tmp_path) == lines
    written = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(written[name], weights[name]) for name in weights)


def log_of(text: str, folder: Path) -> RunLog:
    (folder / LOG).write_text(text)
    return RunLog(folder / LOG, 3)


def test_a_line_of_the_log_that_was_cut_off_is_dropped(tmp_path):
    whole = '{"step": 3, "loss": 1.5, "seconds": 2.0}\n'
    log = log_of(whole + '{"step": 4, "lo', tmp_path)
    log.go_on(3)
    assert log.path.read_text() == whole
    assert log.seconds_before == 2.0


def test_a_run_resumes_behind_a_line_of_the_log_that_was_cut_off(options, tmp_path):
    for name in ("whole", "parts"):
        prepare(options(max_steps=6, save_every=3, log_every=1), tmp_path / name).train()
    log = tmp_path / "parts" / LOG
    for path in (tmp_path / "parts" / CHECKPOINTS / "checkpoint-6").iterdir():
        path.unlink()
    log.write_text(log.read_text()[:-10])
    prepare(options(max_steps=6, save_every=3, log_every=1), tmp_path / "parts", resume=True).train()
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.parametrize(
    ("line", "message"), [('{"step": 4, "lo', "line 2 is not JSON"), ("4", "line 2 has no step and seconds")]
)
def test_a_broken_line_of_the_log_is_refused_by_its_number(line, message, tmp_path):
    text = f'{{"step": 3, "seconds": 2.0}}\n{line}\n{{"step": 5, "seconds": 3.0}}\n'
    with pytest.raises(ValueError, match=f"{LOG}, {message}"):
        log_of(text, tmp_path).go_on(3)
    assert (tmp_path / LOG).read_text() == text
