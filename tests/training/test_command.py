"""The command line, and lmms-eval on what it wrote."""

from __future__ import annotations

import json
import sys

import pytest
from sizes import one_fast
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.adapters import vilt_pumer
from lmms_tokendrop.training.run import prepare


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["train", *arguments], catch_exceptions=False)


def test_what_the_command_writes_loads_with_the_same_reduction(checkpoint, tmp_path):
    output = tmp_path / "run"
    result = invoke(
        *("--output", str(output), "--method", "pumer", "--reduction", "layers=1+2,prune_ratio=0.2"),
        *("--pretrained", checkpoint(), "--teacher", checkpoint(), "--data", "pocket_scenes"),
        *("--max-steps", "2", "--batch-size", "4", "--log-every", "1", "--seed", "3", "--cpu"),
    )
    assert result.exit_code == 0
    assert "kl_loss" in result.output
    reduction = {"method": "pumer", "layers": [1, 2], "prune_ratio": 0.2}
    results = json.loads((output / "training_results.json").read_text())
    assert results["token_reduction"] == reduction
    assert (results["steps"], results["options"]["seed"]) == (2, 3)
    adapter = vilt_pumer(pretrained=str(output), batch_size=2, device="cpu")
    assert adapter.engine.model.config.token_reduction == reduction
    assert adapter.engine.model.config.num_labels == 33


def test_errors_are_one_line_without_a_run(checkpoint, tmp_path):
    output = tmp_path / "run"
    given = ("--output", str(output), "--pretrained", checkpoint(), "--data", "pocket_scenes", "--max-steps", "2")
    for wrong, message in (
        (("--teacher", "no_such_folder"), "Error: teacher='no_such_folder' cannot be loaded"),
        (("--method", "pumer", "--reduction", "prune=1"), "Error: token_reduction: unknown option 'prune'"),
        (("--lr-multipliers", "cross_modal=5"), "Error: lr_multipliers: no parameter's name contains 'cross_modal'"),
    ):
        result = invoke(*given, *wrong)
        assert result.exit_code == 1
        assert message in result.output
        assert not output.exists()


@pytest.mark.parametrize("terminal", one_fast((True, False)))
def test_a_terminal_shows_a_bar_with_the_total(terminal, options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    prepare(options(), tmp_path).train()
    assert ("2/2 [" in capsys.readouterr().err) == terminal


def test_help_shows_every_option():
    text = invoke("--help").output
    assert all(word in text for word in ("--recipe", "--resume", "--teacher", "--kd-weight", "Allowed: sum, mean"))
