import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.comparison import DEMO_RUNS, mean_and_stderr
from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.manifests import VARIANTS
from lmms_tokendrop.evaluation.tasks_path import tasks_path

ROOT = Path(__file__).resolve().parent.parent


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)


def test_list_shows_every_variant():
    output = invoke("list").output
    for entry in VARIANTS:
        for text in (
            entry.model_id,
            entry.architecture,
            entry.method,
            entry.pretrained or "none: name one",
            entry.description,
        ):
            assert text in output


def test_tasks_path_prints_a_folder_with_tasks():
    assert invoke("tasks-path").output.strip() == str(ROOT / "tasks")


def test_tasks_path_prefers_the_installed_folder_and_says_when_there_is_none(tmp_path):
    package = tmp_path / "lmms_tokendrop"
    for folder in (tmp_path / "tasks" / "a", package / "tasks" / "a"):
        with pytest.raises(FileNotFoundError, match="no tasks in"):
            tasks_path(tmp_path / "elsewhere" / "lmms_tokendrop")
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text("task: a\n")
        assert tasks_path(package) == folder.parent


def test_demo_compares_the_variants_on_the_bundled_task(tiny_checkpoint, tmp_path):
    output = tmp_path / "folder" / "measurements.json"
    result = invoke("demo", "--limit", "3", "--pretrained", str(tiny_checkpoint("llama")), "--output", str(output))
    assert result.exit_code == 0
    rows = json.loads(output.read_text())
    assert [(row["model_id"], row["budget"]) for row in rows] == [(run.model_id, run.budget) for run in DEMO_RUNS]
    assert all(row["samples"] == 3 for row in rows)
    full, *reduced = rows
    assert full["visual_tokens"] == full["full_visual_tokens"]
    assert full["difference"] == 0
    for row, run in zip(reduced, DEMO_RUNS[1:], strict=True):
        assert row["visual_tokens"] == pytest.approx(run.model_args["keep_ratio"] * full["visual_tokens"], abs=1)
        assert row["kv_bytes"] < full["kv_bytes"]
    for run in DEMO_RUNS:
        assert run.model_id in result.output
    assert "KV kB" in result.output
    assert f" {full['kv_bytes'] / 1000:.0f} " in result.output


def test_demo_fails_with_the_run():
    with pytest.raises(OSError, match=r"not the path to a directory|couldn't find them"):
        invoke("demo", "--limit", "1", "--pretrained", "no_such_checkpoint")


def test_mean_and_standard_error():
    assert mean_and_stderr([1.0, 0.0, 1.0, 0.0]) == (0.5, pytest.approx((1 / 3 / 4) ** 0.5))
    assert math.isnan(mean_and_stderr([1.0])[1])
