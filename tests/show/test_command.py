"""The command: files, answers, what it refuses; the page and the picture it writes."""

from __future__ import annotations

import re

import pytest
from PIL import Image
from tiny_models import tiny_image
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.show.asking import Answer, LoadedVariant
from lmms_tokendrop.show.control import random_control
from lmms_tokendrop.show.page import page, sheet
from lmms_tokendrop.show.panels import score_panels
from lmms_tokendrop.show.stages import StageResult

QUESTION = "what <b>colour</b> is it ?"


def run(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    tiny_image(60, 40).save(path)
    return path


def test_it_writes_a_picture_and_a_page_and_prints_the_answers(picture, tiny_checkpoint, tmp_path):
    options = ["--pretrained", tiny_checkpoint(), "--model-args", "keep_ratio=0.45,merge_threshold=0.6"]
    done = run(picture, QUESTION, *options, "--max-new-tokens", "2", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    reduced, whole, drawn, *files = done.stdout.splitlines()
    assert reduced.startswith("mustdrop: ")
    assert "random dropping: " in drawn
    full = re.search(r"of (\d+) image", whole)[1]
    assert whole.endswith(f"({full}.0 of {full} image tokens in an average layer)")
    averages = [float(re.search(r"\(([\d.]+) of", line)[1]) for line in (reduced, drawn)]
    assert averages[0] == pytest.approx(averages[1], abs=1)
    assert files == [str(tmp_path / "out" / name) for name in ("tokens.png", "show.html")]
    text = (tmp_path / "out" / "show.html").read_text()
    assert "<b>" not in text
    assert "what &lt;b&gt;colour&lt;/b&gt; is it ?" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    with Image.open(tmp_path / "out" / "tokens.png") as written:
        assert min(written.size) > 200


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "IMAGE and QUESTION are missing; example: lmms-tokendrop show"),
        (["absent.png", "what?"], "absent.png"),
        (["{text}", "what?"], "cannot identify image file"),
        (["{cut}", "what?"], "cut.png: image"),
        (["{picture}", " "], "question: it is empty"),
        (["{picture}", "what?", "--model", "llava_next_mustdorp"], "llava_next_mustdorp"),
        (["{picture}", "what?", "--model-args", "keep_ratio=2"], "keep_ratio=2; allowed"),
        (["{picture}", "what?", "--model-args", "keep_ration=0.5"], "unknown model argument 'keep_ration'"),
        (["{picture}", "what?", "--max-new-tokens", "0"], "max_new_tokens=0; allowed: 1 or more"),
        (["{picture}", "what?", "--device", "abacus"], "device='abacus'; this machine has cpu"),
        (["{picture}", "what?", "--out", "{text}"], "is a file; name a folder"),
    ],
)
def test_what_is_wrong_is_one_line(picture, tmp_path, arguments, error):
    text = tmp_path / "text.txt"
    text.write_text("text")
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture.read_bytes()[:-60])
    done = run(*(part.format(picture=picture, text=text, cut=cut) for part in arguments))
    assert done.exit_code == 1
    assert done.stderr.strip().count("\n") == 0
    assert error in done.stderr


def test_a_file_of_too_many_pixels_is_one_line(picture, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    done = run(picture, "what?")
    assert done.exit_code == 1
    assert done.stderr.strip().startswith(f"Error: {picture}: Image size (2400 pixels) exceeds limit")


def test_the_help_has_an_example():
    assert "lmms-tokendrop show picture.jpg" in run("--help").output


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """The bundled ViLT with predictors of its own."""
    return LoadedVariant("vilt_dynamicvit", "pretrained=pocket")


def test_what_the_weights_do_not_allow_is_said_in_place_of_an_answer(dynamic):
    image = tiny_image(96, 96)
    answers = dynamic.answers(image, "what color is the cross?")
    assert [type(one) for one in answers] == [Answer, str, str]
    views = [dynamic.views(image, answers[0], 60), [], []]
    text = page("what color?", dynamic.setting(), answers, views)
    assert text.count("load it anew") == 2
    assert text.count("<img alt=") == 2 * len(answers[0].stages) + 1
    assert sheet("what color?", answers, views).height > 60


@pytest.mark.parametrize(
    ("stays", "words"), [([(0, 0, 1)], "the mean rank of what stays is 100%"), ([], "none of them stays")]
)
def test_scores_are_told_in_words(stays, words):
    cells = [(0, 0, 0), (0, 0, 1)]
    stage = StageResult("fusion", "block 2", {cell: cell for cell in stays}, dict(zip(cells, (0.0, 1.0), strict=True)))
    answer = Answer("random", {"method": "random"}, "red", cells, 1.0, 2, 0.1, [stage], None)
    assert [one.words for one in score_panels(answer)] == [f"Scores of 2 patches at block 2; {words}."]


def test_an_encoders_control_has_about_as_many_tokens(fusion_checkpoint):
    loaded = LoadedVariant("vilt_pumer", f"pretrained={fusion_checkpoint('vilt')}")
    image = tiny_image(32, 32)
    answer = loaded.ask(image, "what colour ?")
    control = loaded.ask(image, "what colour ?", random_control(loaded.model, answer.tokens, answer.full))
    assert control.tokens == pytest.approx(answer.tokens, abs=1.5)


def test_one_image_is_shown(fusion_checkpoint):
    with pytest.raises(ValueError, match="takes several images; one is shown"):
        LoadedVariant("vilt_pumer", f"pretrained={fusion_checkpoint('vilt', 'two_images')}")
