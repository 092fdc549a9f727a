"""The scene of the README's picture: where the object is, and how much of it is left."""

import choose_scene
import pytest

from lmms_tokendrop.modeling.core.token_report import TokenReport
from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.task_data import task_scenes


@pytest.fixture
def asked():
    """A question about the object in the third row, fourth column: it begins the second tile's fifth row."""
    scene, _ = next(task_scenes(1))
    question = Question("digit_by_color", "what digit is on the red object?", "2", ("2",), ((2, 3),))
    kept = {"mustdrop": [(0, 2, 4, 0), (0, 2, 4, 1), (0, 2, 5, 0), (0, 0, 2, 3)], "random": [(0, 2, 5, 1)]}
    reports = {
        method: TokenReport(average_visual_tokens=[10.0], kept={"before layer 0": [[]], "after layer 1": [places]})
        for method, places in {"none": [], **kept}.items()
    }
    return choose_scene.Asked(scene, question, {"none": "2", "mustdrop": "2", "random": "7"}, reports)


def test_an_object_has_two_by_two_patches_of_the_tile_that_shows_it(asked):
    assert choose_scene.object_patches(asked.question) == {(2, 4, 0), (2, 4, 1), (2, 5, 0), (2, 5, 1)}


def test_what_is_left_is_counted_in_the_tiles_after_the_last_stage(asked):
    assert (asked.share("mustdrop"), asked.share("random")) == (0.75, 0.25)
    assert (asked.right("mustdrop"), asked.right("random")) == (True, False)
