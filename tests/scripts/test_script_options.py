"""Options of scripts that cannot be are one line, before anything is measured or trained."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (
            "train_pocket.py",
            ("vilt", "--output", "new", "--learning-rate", "nan"),
            "learning_rate=nan; allowed: a number",
        ),
        ("train_pocket.py", ("vilt", "--output", "file"), "output='file': 'file' is a file; name a folder"),
        ("train_pocket.py", ("vilt", "--output", "new", "--export", "to"), "output='new' has no checkpoint to export"),
        ("compare_commits.py", ("no-such", "HEAD"), "'no-such' is no commit of this repository"),
        ("compare_speed.py", ("no-such", "HEAD"), "'no-such' is no commit of this repository"),
        ("compare_speed.py", ("HEAD", "HEAD", "--output", "folder"), "output='folder' is a folder; name a file"),
        ("write_goldens.py", ("vilt_other",), "unknown variant 'vilt_other'"),
        ("make_pocket_tasks.py", ("--output", "folder"), "output='folder' is a folder; name a file"),
        ("plan_real_models.py", ("--output", "folder"), "output='folder' is a folder; name a file"),
        ("plan_real_models.py", ("llava-7b", "--output", "new"), "models: 'llava-7b'; allowed: llava-1.5-7b, "),
        ("choose_scene.py", ("folder",), "output='folder' is a folder; name a file"),
        ("choose_scene.py", ("new.txt",), "output='new.txt'; allowed: a name that ends like a picture's, such as .png"),
        ("choose_scene.py", ("new.png", "--keep-ratio", "nan"), "token_reduction: keep_ratio=nan; allowed: a number"),
        ("pocket_experiments.py", ("vilt", "--runs", "file"), "runs='file': 'file' is a file; name a folder"),
        ("pocket_experiments.py", ("vilt", "--runs", "new", "--speed", "nan"), "speed=nan; allowed: a number from 0"),
        ("pocket_experiments.py", ("meter", "--runs", "new", "--tables", "curve"), "tables: curve; allowed: methods"),
    ],
)
def test_wrong_options_of_scripts(script, options, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"Error: {message}")
    assert not (tmp_path / "new").exists()
