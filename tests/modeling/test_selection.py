"""Newlines, at least one token per image, groups: as decided on real layouts."""

from __future__ import annotations

import pytest
import torch
from cases import KEEP_ALL, METHODS, PROMPTS

from lmms_tokendrop.modeling.core.transformers_compat import cache_of

SIDES = {28: 4, 35: 5, 42: 6}
SCOPES = ("image", "tile", "request")


@torch.no_grad()
def report_of(model, inputs):
    return cache_of(model(**inputs, use_cache=True)).report()


def lines_of(tokens, side: int):
    """Kept `(image, image row)` of newlines and of patches beside the base view.

    A tile's row is a row of the image: tiles of one band share it, and the newline has the band's last tile.
    """
    newlines = {(image, tile, row) for image, tile, row, column in tokens if column == side}
    patches = {(image, tile, row) for image, tile, row, column in tokens if column != side and tile > 0}
    return newlines, patches


def bands(model, inputs) -> dict[tuple[int, int], int]:
    """For each `(image, tile)`, the last tile of its band."""
    output = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    last = {}
    for image, tokens in enumerate(output.visual_tokens):
        for line in tokens.line.unique().tolist():
            inside = tokens.line == line
            if line >= 0:
                owner = int(tokens.tile[inside & tokens.newline])
                last |= {(image, tile): owner for tile in tokens.tile[inside].unique().tolist()}
    return last


@pytest.mark.parametrize("image_size", SIDES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["budget", "random"])
def test_a_newline_stays_exactly_while_a_token_of_its_row_does(workshop, method, scope, image_size):
    model = workshop.reduced({**METHODS[method], "scope": scope}, image_size=image_size)
    inputs = workshop.inputs("two_images", image_size=image_size)
    owner = bands(workshop.reduced("none", image_size=image_size), inputs)
    stages = report_of(model, inputs).kept
    assert stages
    for (tokens,) in stages.values():
        newlines, patches = lines_of(tokens, SIDES[image_size])
        if scope == "tile":
            rows = {(image, tile, row) for image, tile, row in patches if owner[image, tile] == tile}
        else:
            rows = {(image, owner[image, tile], row) for image, tile, row in patches}
        assert newlines == rows


@pytest.mark.parametrize("image_size", SIDES)
def test_a_newline_stays_with_its_row_under_thresholds(workshop, image_size):
    model = workshop.reduced("threshold", image_size=image_size)
    inputs = workshop.inputs("two_images", image_size=image_size)
    owner = bands(workshop.reduced("none", image_size=image_size), inputs)
    for (tokens,) in report_of(model, inputs).kept.values():
        newlines, patches = lines_of(tokens, SIDES[image_size])
        assert newlines == {(image, owner[image, tile], row) for image, tile, row in patches}


@pytest.mark.parametrize("method", ["budget", "threshold", "random"])
def test_all_newlines_stay_with_keep(workshop, method):
    inputs = workshop.inputs("two_images")
    model = workshop.reduced({**METHODS[method], "newlines": "keep"})
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).visual_tokens
    total = sum(int(tokens.newline.sum()) for tokens in features)
    for (tokens,) in report_of(model, inputs).kept.values():
        assert len(lines_of(tokens, 6)[0]) == total


@pytest.mark.parametrize("method", ["budget", "threshold", "random"])
def test_no_newline_stays_with_drop(workshop, method):
    model = workshop.reduced({**METHODS[method], "newlines": "drop"})
    for (tokens,) in report_of(model, workshop.inputs("two_images")).kept.values():
        assert not lines_of(tokens, 6)[0]


@pytest.mark.parametrize("newlines", ["row", "keep", "drop"])
@pytest.mark.parametrize("scope", SCOPES)
def test_every_image_keeps_a_token_at_the_smallest_reachable_budget(workshop, scope, newlines):
    inputs = workshop.inputs("two_images")
    count = {"image": 1, "tile": 1, "request": 2}[scope]
    extra = {"row": 0, "drop": 0, "keep": {"image": 18, "tile": 6, "request": 24}[scope]}[newlines]
    reduction = {"method": "random", "scope": scope, "newlines": newlines, "visual_tokens": count + extra}
    for (tokens,) in report_of(workshop.reduced(reduction), inputs).kept.values():
        assert {image for image, *_ in tokens} == {0, 1}


@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
def test_an_image_never_loses_its_last_token_to_the_cost_of_a_newline(workshop, share):
    """Base views are left without a token, so that every survivor brings a newline; then one token is asked for."""
    inputs = workshop.inputs("ragged_batch")
    floor_free = {"method": "mustdrop", "merge_threshold": 1.1, "layers": [0, 1, 2]}
    full = report_of(workshop.reduced("none"), inputs).full_visual_tokens
    lowest = max((total + 3) / 4 for total in full)
    model = workshop.reduced({**floor_free, "visual_tokens": lowest + share})
    kept = report_of(model, inputs).kept
    assert all(rows[row] for rows in kept.values() for row in range(2))


@pytest.mark.parametrize("method", ["none", "budget", "threshold", "random"])
def test_a_sliver_that_unpadding_leaves_without_columns_works(workshop, method):
    """Of an image narrower than a column only the base view and newlines are left."""
    inputs = workshop.inputs([("USER: <image>\nyes or no ? ASSISTANT:", [(8, 400)])])
    report = report_of(workshop.reduced(method), inputs)
    assert report.full_visual_tokens == [36 + 18]
    assert method == "none" or 0 < report.average_visual_tokens[0] < 54


@pytest.mark.parametrize("method", KEEP_ALL)
def test_keeping_all_of_a_sliver_is_bitwise_stock(workshop, method):
    inputs = workshop.inputs([("USER: <image>\nyes or no ? ASSISTANT:", [(8, 400)])])
    expected = workshop.stock()(**inputs).logits
    assert torch.equal(workshop.reduced(KEEP_ALL[method])(**inputs).logits, expected)


def test_text_never_leaves(workshop):
    for prompt in PROMPTS:
        inputs = workshop.inputs(prompt)
        with torch.no_grad():
            cache = cache_of(workshop.reduced("budget")(**inputs, use_cache=True))
        text = inputs["attention_mask"].bool() & (inputs["input_ids"] != 4)
        for record in cache.records:
            for row in range(len(text)):
                assert set(text[row].nonzero().flatten().tolist()) <= set(record.index[row].tolist())


@pytest.mark.parametrize("size", [(2, 400), (3, 200)])
@pytest.mark.parametrize("newlines", ["drop", "row", "keep"])
def test_slivers_of_which_unpadding_leaves_newlines_alone_meet_a_budget_per_tile(workshop, size, newlines):
    """These newlines belong to the base view, so that no tile is without patches."""
    inputs = workshop.inputs([("USER: <image>\nyes or no ? ASSISTANT:", [size])])
    plain = workshop.reduced("none").model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    [tokens] = plain.visual_tokens
    assert bool(tokens.newline.any())
    assert set(tokens.tile[tokens.newline].tolist()) == set(tokens.tile[~tokens.newline].tolist()) == {0}
    model = workshop.reduced(
        {**METHODS["random"], "newlines": newlines, "keep_ratio": None, "visual_tokens": 30, "scope": "tile"}
    )
    assert cache_of(model(**inputs, use_cache=True)).report().average_visual_tokens == [30]
