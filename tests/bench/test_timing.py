"""Functions that take turns, against a clock that only runs when they do; and what they ran on."""

import subprocess

import pytest
import torch

from lmms_tokendrop.bench.machine import commit, machine
from lmms_tokendrop.bench.timing import seconds_in_turn


def test_each_is_timed_in_each_round_but_the_first_and_every_second_round_goes_backwards():
    durations, now, ran = iter([9.0, 9.0, 1.0, 2.0, 3.0, 4.0]), [0.0], []

    def run(name: str) -> None:
        ran.append(name)
        now[0] += next(durations)

    runs = {"a": lambda: run("a"), "b": lambda: run("b")}
    assert seconds_in_turn(runs, 2, lambda: now[0]) == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    assert "".join(ran) == "baabba"


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("before")
    git("add", "file")
    git("commit", "-m", "one")
    return tmp_path, git("rev-parse", "HEAD")


def test_the_commit_of_a_checkout_says_whether_files_differ_from_it(checkout, tmp_path_factory):
    folder, head = checkout
    assert commit(folder) == head
    (folder / "file").write_text("after")
    assert commit(folder) == f"{head}+"
    assert commit(tmp_path_factory.mktemp("none")) is None


def test_the_machine_is_named_with_versions():
    found = machine(torch.device("cpu"))
    assert found["machine"].endswith(" CPU")
    assert (found["torch"], found["threads"]) == (torch.__version__, torch.get_num_threads())
