"""Anchors, their neighbours and deep patches, by hand; and which blocks are read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tile_cases import kept_cells, reducer_of, shown_tiles, stock_tile, tile_context, tiles_of

from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.methods.hiprune_like import HiPruneLike, beside

MIDDLE = torch.tensor([[0.0, 3, 1, 2, 9, 1, 1, 1, 2, 8]])
DEEP = torch.tensor([[[0.1, 0.01, 0.02, 0.19, 0.03, 0.04, 0.15, 0.16, 0.2, 0.1]]])
"""Of CLS and of a 3 x 3 grid: the middle block attends cell 3 most, then 8, then 0."""


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        # one anchor, 3, with 0, 4 and 6; then 7 (0.2), 2 (0.19)
        ({"visual_tokens": 6, "anchor_ratio": 0.8}, [0, 2, 3, 4, 6, 7]),
        # 3, and of 0, 4 and 6 the two that the deep block attends more
        ({"visual_tokens": 3, "anchor_ratio": 1.0}, [3, 4, 6]),
        # no anchor
        ({"visual_tokens": 3, "anchor_ratio": 0.0}, [2, 6, 7]),
    ],
)
def test_a_tile_by_hand(options, cells):
    reducer = reducer_of(HiPruneLike, "hiprune_like", attention="cls", **options)
    tiles = tiles_of(torch.ones(1, 9, dtype=torch.bool), grid=(3, 3))
    context = replace(tile_context(torch.zeros(1, 10, 2), tiles, DEEP), carry={"middle": MIDDLE})
    assert kept_cells(reducer.keep(reducer.stages()[1], context)) == [cells]


def test_what_is_cut_off_is_no_anchor_and_no_neighbour():
    """Without 3, which is attended most, and 7: 8 is the anchor, with 5; then 2 and 6."""
    shown = torch.tensor([[True, True, True, False, True, True, True, False, True]])
    reducer = reducer_of(HiPruneLike, "hiprune_like", attention="cls", visual_tokens=4, anchor_ratio=1.0)
    context = tile_context(torch.zeros(1, 10, 2), tiles_of(shown, grid=(3, 3)), DEEP)
    context.carry = {"middle": MIDDLE}
    assert kept_cells(reducer.keep(reducer.stages()[1], context)) == [[2, 5, 6, 8]]


def test_neighbours_end_at_the_edge_of_the_grid():
    marked = torch.zeros(1, 3, 4, dtype=torch.bool)
    marked[0, 0, 3] = marked[0, 2, 0] = True
    assert beside(marked).nonzero()[:, 1:].tolist() == [[0, 2], [1, 0], [1, 3], [2, 1]]


@pytest.mark.parametrize("attention", ["received", "cls"])
@torch.no_grad()
def test_both_blocks_are_read_as_the_stock_tower_attends(workshop, attention):
    """Of the tiles' tokens a half would be anchors and neighbours."""
    halves = {"keep_ratio": 0.5, "anchor_ratio": 0.5, "anchor_block": 1}
    model = workshop.reduced({"method": "hiprune_like", "attention": attention, **halves}).model
    stock = workshop.stock(attention="eager").model
    for pixels, alive, features in shown_tiles(model, workshop.inputs("one_image"), 0).values():
        middle, deep = (getattr(stock_tile(stock, pixels, block), attention) for block in (1, 2))
        anchors = sorted(alive, key=lambda cell: -middle[cell])[: round(0.5 * len(features) / 5)]
        near = {cell for cell in alive for anchor in anchors if adjacent(cell, anchor)} - set(anchors)
        ordered = sorted(alive, key=lambda cell: (cell not in anchors, cell not in near, -deep[cell]))
        assert sorted(features) == sorted(ordered[: len(features)])


def adjacent(first: int, second: int) -> bool:
    return abs(first // 6 - second // 6) + abs(first % 6 - second % 6) == 1


@pytest.mark.parametrize(("blocks", "block"), [(24, 9), (12, 4), (4, 0)])
def test_the_default_block_is_9_of_24_scaled(blocks, block):
    options = reducer_of(HiPruneLike, "hiprune_like").options
    assert HiPruneLike(options, Host(32, 64, 336, blocks, feature_block=blocks - 2)).anchor_block == block


def test_an_anchor_block_that_is_not_before_the_features_is_named():
    with pytest.raises(ValueError, match=r"anchor_block=2: .*allowed: 0 to 1"):
        reducer_of(HiPruneLike, "hiprune_like", anchor_block=2)
