"""What the page of `show --serve` shows, without the page."""

from __future__ import annotations

import sys

import pytest
from tiny_models import tiny_image
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.show.asking import LoadedVariant
from lmms_tokendrop.show.serving import allowed_methods, asked, options_at


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return LoadedVariant("llava_next_fastv", f"pretrained={tiny_checkpoint()}", max_new_tokens=2)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    tiny_image(60, 40).save(path)
    return str(path)


def test_methods_side_by_side_have_an_answer_and_a_picture_each_at_the_share(loaded, picture):
    small, large = (asked(loaded, picture, "what ?", ["fastv", "none", "random"], share) for share in (0.6, 0.8))
    assert small.count("<th scope=row>") == 3
    assert small.count("<img alt=") == 3  # the image, and what two methods leave
    assert small.split("<img")[1] == large.split("<img")[1]
    assert small.split("<img")[2:] != large.split("<img")[2:]


def test_a_budget_out_of_reach_is_said_in_place_of_an_answer(loaded, picture):
    shown = asked(loaded, picture, "what ?", ["fastv", "none"], 0.05)
    assert '<td colspan="4">fastv: ' in shown
    assert shown.count("<th scope=row>") == 1


@pytest.mark.parametrize(
    ("path", "question", "methods", "sentence"),
    [
        (None, "what ?", ["fastv"], "Choose an image file first."),
        ("{picture}", "what ?", [], "Choose a method first."),
        ("{picture}", " ", ["fastv"], "question: it is empty"),
        ("{text}", "what ?", ["fastv"], "cannot identify image file &#x27;text.png&#x27;"),
    ],
)
def test_what_is_wrong_is_a_sentence(loaded, picture, tmp_path, path, question, methods, sentence):
    (tmp_path / "text.png").write_text("no picture")
    given = path and path.format(picture=picture, text=tmp_path / "text.png")
    shown = asked(loaded, given, question, methods, 0.5)
    assert sentence in shown
    assert str(tmp_path) not in shown


def test_methods_are_those_that_the_weights_allow(loaded, fusion_checkpoint):
    assert allowed_methods(loaded)[0] == "fastv"
    assert set(allowed_methods(loaded)) <= set(reductions("llava_next").reducers) - {"composed"}
    encoder = LoadedVariant("vilt_random", f"pretrained={fusion_checkpoint('vilt')}")
    assert "dynamicvit" not in allowed_methods(encoder)
    assert options_at(encoder, "random", 0.6) == {"method": "random", "prune_ratio": 0.4}
    assert options_at(encoder, "none", 0.6) == {"method": "none"}


def test_without_gradio_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("lmms_tokendrop.show.command.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["show", "--serve"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: --serve needs gradio: pip install")


def test_served_pages_take_their_question_there(picture):
    done = CliRunner().invoke(app, ["show", picture, "what?", "--serve"])
    assert done.exit_code == 1
    assert "leave them out" in done.stderr
