"""Pictures of kept tokens."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_models import tiny_config, tiny_llava_config

from lmms_tokendrop.modeling.core.fusion_tokens import FusionReport, FusionTokens
from lmms_tokendrop.visualize import CAPTION, DROPPED, GAP, draw_kept_patches, draw_kept_tokens


@pytest.fixture
def picture():
    """A red square image of 5 tiles; one fine cell and one base cell are left."""
    image = Image.new("RGB", (84, 84), "red")
    kept = {"after layer 1": [[(0, 0, 0, 0), (0, 4, 5, 5)]]}
    return draw_kept_tokens(image, kept, tiny_config(image_size=42), size=240)


def test_one_column_for_the_input_and_one_per_stage(picture):
    assert picture.size == (2 * 240 + GAP, CAPTION + 240 + GAP + 120)


def test_kept_patches_show_the_image_and_dropped_ones_are_blank(picture):
    left = 240 + GAP
    assert picture.getpixel((left + 235, CAPTION + 235)) == (255, 0, 0)
    assert picture.getpixel((left + 5, CAPTION + 5)) == DROPPED
    assert picture.getpixel((left + 5, CAPTION + 240 + GAP + 5)) == (255, 0, 0)
    assert picture.getpixel((left + 115, CAPTION + 240 + GAP + 115)) == DROPPED


def test_a_model_that_cuts_no_images_sees_the_middle_of_one():
    image = Image.new("RGB", (84, 42), "blue")
    image.paste("red", (21, 0, 63, 42))
    picture = draw_kept_tokens(image, {"before layer 0": [[(0, 0, 0, 0)]]}, tiny_llava_config(), size=60)
    assert picture.size == (2 * 60 + GAP, CAPTION + 60)
    assert [picture.getpixel((x, CAPTION + y)) for x, y in ((4, 4), (55, 55))] == [(255, 0, 0)] * 2
    assert [picture.getpixel((60 + GAP + place, CAPTION + place)) for place in (5, 15)] == [(255, 0, 0), DROPPED]


def test_the_input_is_drawn_whole(picture):
    assert picture.getpixel((5, CAPTION + 5)) == (255, 0, 0)


def test_patches_that_left_an_encoder_are_blank_after_their_layer():
    start = FusionTokens.start(torch.ones(1, 2), torch.ones(1, 5))
    left = replace(start, place=start.place[:, [0, 1, 2, 3, 6]])
    patches = torch.tensor([[[0, 0], [0, 1], [1, 0], [1, 1]]])
    report = FusionReport(received=[start, left], left=[left, left], patches=patches)
    picture = draw_kept_patches(Image.new("RGB", (40, 40), "red"), report, size=40)
    assert picture.size == (2 * 40 + GAP, CAPTION + 40)
    before, after = ((column * (40 + GAP), CAPTION) for column in (0, 1))
    colours = {
        name: [picture.getpixel((left + x, top + y)) for y in (10, 30) for x in (10, 30)]
        for name, (left, top) in {"before": before, "after": after}.items()
    }
    red = (255, 0, 0)
    assert colours == {"before": [red] * 4, "after": [red, DROPPED, DROPPED, red]}
