"""What every command answers to --help."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from lmms_tokendrop.cli import app

COMMANDS = typer.main.get_command(app).commands
EXAMPLE = re.compile(r"^(?:Examples?: *|Such as: *)?(lmms-tokendrop .*)$", re.MULTILINE)


def shown(monkeypatch, width: int, *arguments: str) -> str:
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", width)
    result = CliRunner().invoke(app, [*arguments, "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def words(text: str) -> list[str]:
    return re.sub(r"[│╭╮╰╯─]", " ", text).split()


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fills_the_width_and_cuts_nothing_off(monkeypatch, name, width):
    output = shown(monkeypatch, width, name)
    assert max(map(len, output.splitlines())) == width
    assert "…" not in output
    flat = " ".join(words(output)).replace("`", "")
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        assert all(word in flat for word in parameter.help.replace("`", "").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_the_command_takes(name):
    command = COMMANDS[name]
    examples = EXAMPLE.findall("\n".join(line.strip() for line in f"{command.help}\n{command.epilog}".splitlines()))
    assert examples
    for example in examples:
        _, called, *arguments = shlex.split(example)
        assert called == name
        command.make_context(name, arguments)


@pytest.mark.parametrize("width", [80, 160])
def test_help_of_all_lists_every_command(monkeypatch, width):
    output = shown(monkeypatch, width)
    assert "…" not in output
    assert set(COMMANDS) <= set(words(output))
