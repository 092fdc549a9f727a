"""Evenly spaced tokens: which places, per image and per tile."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lmms_tokendrop.modeling.core.transformers_compat import cache_of


@torch.no_grad()
def kept(workshop, prompt="one_image", **options) -> list[list[tuple[int, int, int, int]]]:
    model = workshop.reduced({"method": "uniform", **options})
    return cache_of(model(**workshop.inputs(prompt), use_cache=True)).report().kept["before layer 0"]


def test_places_of_a_tile_by_hand(workshop):
    """Of 36 patches 4 stay, one of each nine."""
    (tokens,) = kept(workshop, scope="tile", visual_tokens=4)
    assert [row * 6 + column for _, tile, row, column in tokens if tile == 0] == [5, 14, 23, 32]


@pytest.mark.parametrize("scope", ["image", "tile"])
def test_gaps_differ_by_one_at_most(workshop, scope):
    (everything,) = kept(workshop, keep_ratio=1.0, scope=scope)
    (tokens,) = kept(workshop, keep_ratio=0.3, scope=scope)
    tiles = {tile for _, tile, _, _ in everything} if scope == "tile" else {None}
    for wanted in tiles:
        order = [place for place in everything if wanted in (None, place[1])]
        places = [order.index(place) for place in tokens if wanted in (None, place[1])]
        gaps = {after - before for before, after in pairwise(places)}
        assert max(gaps) - min(gaps) <= 1
        assert len(places) == round(0.3 * len(order))


def test_no_newline_stays(workshop):
    (tokens,) = kept(workshop, keep_ratio=1.0)
    assert all(column < 6 for _, _, _, column in tokens)


def test_every_image_of_a_request_keeps_a_token(workshop):
    (tokens,) = kept(workshop, "two_images", scope="request", visual_tokens=2)
    assert {image for image, *_ in tokens} == {0, 1}
