"""The command that checks an exported folder: a line per check, exit status 1 and one line at the first that fails."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.hub.export import build
from lmms_tokendrop.hub.manifest import Manifest


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_vilt_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "vilt_pumer"
    folder.mkdir()
    build("vilt_pumer", folder, base=str(tiny_vilt_checkpoint()), form="full")
    return folder


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_check_says_what_it_found_and_nothing_is_written(folder):
    before = contents(folder)
    done = run(folder)
    assert done.exit_code == 0, done.output
    files, code, example, fresh = done.stdout.splitlines()
    assert files == f"files: {len(before) - 1}, each as the record says"
    assert code.startswith("code: that of the installed package")
    assert example.startswith("vilt_pumer: ")
    assert fresh.endswith("load, with the same tokens per layer and logits")
    assert contents(folder) == before


@pytest.mark.slow
def test_without_weights_parameters_are_compared(folder):
    done = run(folder, "--check", "meta")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].endswith("load, with the same parameters")


def changed_code(folder):
    path = folder / "token_ops.py"
    path.write_text(path.read_text() + "\n")
    Manifest.read(folder).with_files(folder).write(folder)


def other_options(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"pumer"', '"none"'))
    Manifest.read(folder).with_files(folder).write(folder)


@pytest.mark.parametrize(
    ("tamper", "passed", "error"),
    [
        (lambda folder: (folder / "token_ops.py").write_text(""), 0, "token_ops.py was changed after the export"),
        (changed_code, 1, "token_ops.py is not the installed package's"),
        (other_options, 1, "available.py is not the installed package's"),
        (lambda folder: (folder / "tokendrop_export.json").unlink(), 0, "lmms-tokendrop export"),
    ],
)
def test_the_first_that_fails_ends_it_in_one_line(folder, tamper, passed, error):
    tamper(folder)
    done = run(folder)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == passed
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert error in line


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("absent",), "absent"), ((".", "--check", "logits"), "check='logits'; allowed: 'weights', 'meta'")],
)
def test_wrong_arguments_are_one_line(arguments, error):
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert error in done.stderr
