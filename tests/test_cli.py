import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.manifests import VARIANTS
from lmms_tokendrop.evaluation.tasks_path import tasks_path

ROOT = Path(__file__).resolve().parent.parent


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)


def test_list_shows_every_variant():
    output = invoke("list").output
    for entry in VARIANTS:
        for text in (entry.model_id, entry.architecture, entry.method, entry.pretrained, entry.description):
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
