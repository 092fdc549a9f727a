"""Options of scripts that cannot be are one line, before anything is measured or trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (
            "train_pocket.py",
            ("vilt", "--output", "new", "--learning-rate", "nan"),
            "learning_rate=nan; allowed: a number",
        ),
        ("train_pocket.py", ("vilt", "--output", "file"), "output='file' is a file; name a folder"),
        ("train_pocket.py", ("vilt", "--output", "new", "--export", "to"), "output='new' has no checkpoint to export"),
        ("measure_throughput.py", ("vilt", "--seconds", "inf"), "seconds=inf; allowed: a number from 0"),
        ("measure_throughput.py", ("vilt", "--output", "folder"), "output='folder' is a folder; name a file"),
    ],
)
def test_wrong_options_of_scripts(script, options, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    command = [sys.executable, str(SCRIPTS / script), *options]
    finished = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith(f"Error: {message}")
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "new").exists()
