"""The README's picture: where the object is, and how much of it is left."""

import importlib.util
import sys

import pytest
from documents import ROOT
from tiny_models import tiny_config

from lmms_tokendrop.modeling.token_report import TokenReport
from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.task_data import task_scenes


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("draw_tokens", ROOT / "scripts" / "draw_tokens.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_tokens"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["draw_tokens"]


@pytest.fixture
def asked(script):
    """A question about the object in the third row, fourth column: it begins the second tile's fifth row."""
    scene, _ = next(task_scenes(1))
    question = Question("digit_by_color", "what digit is on the red object?", "2", ("2",), ((2, 3),))
    kept = {"mustdrop": [(0, 2, 4, 0), (0, 2, 4, 1), (0, 2, 5, 0), (0, 0, 2, 3)], "random": [(0, 2, 5, 1)]}
    reports = {
        method: TokenReport(average_visual_tokens=[10.0], kept={"before layer 0": [[]], "after layer 1": [places]})
        for method, places in {"none": [], **kept}.items()
    }
    return script.Asked(scene, question, {"none": "2", "mustdrop": "2", "random": "7"}, reports)


def test_an_object_has_two_by_two_patches_of_the_tile_that_shows_it(script, asked):
    assert script.object_patches(asked.question) == {(2, 4, 0), (2, 4, 1), (2, 5, 0), (2, 5, 1)}


def test_what_is_left_is_counted_in_the_tiles_after_the_last_stage(asked):
    assert (asked.share("mustdrop"), asked.share("random")) == (0.75, 0.25)
    assert (asked.right("mustdrop"), asked.right("random")) == (True, False)


def test_the_object_is_framed_in_every_column(script, asked):
    picture = script.draw(asked, tiny_config(image_size=42))
    step = script.SIZE // 6
    for column in range(3):
        corner = (column * (script.SIZE + script.GAP) + 3 * step, script.HEADLINE + script.CAPTION + 2 * step)
        assert picture.getpixel(corner) == script.MARK
