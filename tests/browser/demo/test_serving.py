"""The page of `lmms-tokendrop show --serve` in a browser, served by a process whose home and folder stay empty."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from tiny_models import tiny_image

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[3]
CODE = "from lmms_tokendrop.cli import app; app()"


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_checkpoint):
    """Return the address, and the folder that is the server's home, working and temporary folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "tmp").mkdir()
    variables = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    arguments = ["show", "--serve", "--pretrained", str(tiny_checkpoint()), "--max-new-tokens", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        cwd=home,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    line = process.stdout.readline()
    yield re.match(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)", line)[1], home
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.fixture
def opened(page, server):
    page.open(server[0])
    page.until(lambda: page.all("input[type=file]") and page.all("#result"))
    page.until(lambda: page.all("textarea"))
    page.forget()  # what Gradio's own code logs as it starts
    return page


def ask(page, picture: Path, question: str) -> None:
    page.one("input[type=file]").send_keys(str(picture))
    page.until(lambda: page.all(".file-preview"))
    page.one("textarea").send_keys(question)
    button(page).click()


def button(page):
    return next(element for element in page.all("button") if element.text == "Ask")


def sources(page) -> list[str]:
    return [picture.get_attribute("src") for picture in page.all("#result img")]


def test_a_question_is_answered_and_the_slider_changes_the_picture(opened, tmp_path):
    tiny_image(84, 60).save(tmp_path / "picture.png")
    ask(opened, tmp_path / "picture.png", "what colour is the square ?")
    opened.until(lambda: sources(opened))
    first = sources(opened)
    assert [cell.text for cell in opened.all("#result th[scope=row]")] == ["mustdrop", "all tokens", "random dropping"]
    assert all(picture.get_attribute("alt") for picture in opened.all("#result img"))
    for _ in range(4):
        opened.one("input[type=range]").send_keys(Keys.ARROW_RIGHT)
    opened.until(lambda: sources(opened) and sources(opened) != first)
    assert [line for line in opened.problems() if "svelte" not in line] == []  # those are elements of Gradio's own
    opened.forget()


def test_a_bad_upload_gets_a_sentence(opened, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    ask(opened, tmp_path / "text.png", "what is it ?")
    opened.until(lambda: opened.all("#result [role=alert]"))
    assert opened.one("#result [role=alert]").text == "cannot identify image file 'text.png'"
    opened.forget()


def test_the_keyboard_reaches_everything(opened):
    reached = opened.tabbed()
    assert {opened.one("textarea"), opened.one("input[type=range]"), button(opened)} <= set(reached)
