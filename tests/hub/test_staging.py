"""Unfinished folders: those of killed processes go, every other one stays."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_tokendrop.hub.staging import CONTENT, LOCK, staged

FILL = """
import sys
from pathlib import Path
from lmms_tokendrop.hub.staging import staged
with staged(Path(sys.argv[1])) as content:
    (content / "part").write_text("half")
    print(content.parent, flush=True)
    sys.stdin.read()
"""


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with staged(tmp_path / "out") as content:
        (content / "file").write_text("whole")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), staged(tmp_path / "out") as content:
        (content / "absent" / "file").write_text("half")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_fills_is_not(tmp_path):
    command = [sys.executable, "-c", FILL, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    unfinished = Path(process.stdout.readline().strip())
    with staged(tmp_path / "out"):
        assert (unfinished / CONTENT / "part").read_text() == "half"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert unfinished.is_dir()
    (tmp_path / "out").rmdir()
    with staged(tmp_path / "out"):
        assert not unfinished.exists()


def test_folders_that_only_look_alike_stay(tmp_path):
    folders = {
        "out-unfinished-notes": ["notes.txt"],
        "out-unfinished-export": [LOCK, "notes.txt"],
        "other-unfinished-x": [LOCK],
        "elsewhere": [LOCK, CONTENT],
    }
    for name, files in folders.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    (tmp_path / "out-unfinished-link").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with staged(tmp_path / "out"):
        pass
    (tmp_path / "out").rmdir()
    assert sorted(tmp_path.rglob("*")) == before
