"""VisionZip: who is dominant, what merges where, by hand, and the features of a whole model by loops."""

from __future__ import annotations

import pytest
import torch
from tile_cases import decided, reducer_of, shown_tiles, stock_tile, tile_context, tiles_of

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.methods.visionzip import VisionZip

ATTENTION = torch.tensor([[[0.20, 0.05, 0.30, 0.02, 0.03, 0.04, 0.06, 0.25, 0.05]]])
"""Of CLS to itself and to 8 patches: 1 and 6 are dominant."""
STATES = torch.tensor([[100.0, 0, 10, 20, 30, 40, 50, 60, 70]]).unsqueeze(-1)
KEYS = torch.tensor([[[9.0, 9], [1, 0], [5, 5], [2, 1], [3, -1], [0, 1], [1, 4], [5, 5], [0, 2]]])
"""Patches 2 and 3 lie nearer to patch 0, patches 5 and 7 nearer to 4."""


def context(alive: list[int] | None = None):
    shown = torch.ones(1, 8, dtype=torch.bool)
    if alive is not None:
        shown[:] = False
        shown[0, alive] = True
    return tile_context(STATES, tiles_of(shown), ATTENTION, KEYS.unsqueeze(1))


@pytest.mark.parametrize(
    ("options", "cells", "states"),
    [
        # of five: two contextual, CLS in the slot of 2, two dominant; the rest is 0 2 3 4 5 7, every third a target
        ({}, [0, 1, 2, 4, 6], [50 / 3, 10, 100, 160 / 3, 60]),
        ({"contextual": "sum"}, [0, 1, 2, 4, 6], [0 + 25, 10, 100, 40 + 60, 60]),
        # three dominant: 5 too (0.06); the rest is 0 2 3 4 7, every second a target, and 0 is nearer to all the others
        ({"cls_slot": False}, [0, 1, 3, 5, 6], [130 / 4, 10, 30, 50, 60]),
        # four dominant: the first of 0 and 7, which have the same attention
        ({"contextual_ratio": 0.0}, [0, 1, 2, 5, 6], [0, 10, 100, 50, 60]),
        # none dominant: 5 and 7 merge into 4, and 6 into 1, whose key it has
        ({"contextual_ratio": 1.0}, [0, 1, 2, 3, 4], [0, 35, 20, 30, 160 / 3]),
    ],
)
def test_a_tile_by_hand(options, cells, states):
    reducer = reducer_of(VisionZip, "visionzip", visual_tokens=5, **{"contextual_ratio": 0.4, **options})
    found, features = decided(reducer, context())
    assert found == [cells]
    if states is not None:
        torch.testing.assert_close(features.flatten(), torch.tensor(states, dtype=torch.float32))


def test_patches_outside_the_picture_neither_stay_nor_merge():
    """Without 1 and 7: 6 and CLS, and of 0 2 3 4 5 every second a target; 0 is nearer to 2, 4 and 5."""
    reducer = reducer_of(VisionZip, "visionzip", visual_tokens=4, contextual_ratio=0.5)
    found, features = decided(reducer, context([0, 2, 3, 4, 5, 6]))
    assert found == [[0, 2, 3, 6]]
    torch.testing.assert_close(features.flatten(), torch.tensor([110 / 4, 100, 30, 60]))


def test_the_papers_numbers_of_contextual_tokens():
    """30 of 192, 20 of 128, 10 of 64, and of LLaVA-NeXT's tiles 20, 10 and 5."""
    ratio = reducer_of(VisionZip, "visionzip").options.contextual_ratio
    assert [round(ratio * tokens, 6) for tokens in (192, 128, 64, 32)] == [30, 20, 10, 5]


@pytest.mark.parametrize("image", [0, 1])
@torch.no_grad()
def test_features_of_a_model_equal_loops_over_its_tiles(workshop, image):
    """Of images of which unpadding cuts rows or columns off."""
    model, stock = workshop.reduced({"method": "visionzip", "keep_ratio": 0.3}).model, workshop.stock(attention="eager")
    tiles = shown_tiles(model, workshop.inputs("ragged_batch"), image)
    assert any(len(alive) < 36 for _, alive, _ in tiles.values())
    for pixels, alive, features in tiles.values():
        expected = by_loops(stock.model, pixels, alive, len(features))
        assert sorted(features) == sorted(expected)
        for cell, row in features.items():
            assert torch.allclose(row, expected[cell], atol=1e-5)


def by_loops(stock, pixels: torch.Tensor, alive: list[int], count: int) -> dict[int, torch.Tensor]:
    """Cells and projected features of one tile, from what the stock tower gives."""
    tile = stock_tile(stock, pixels)
    keys = tile.keys.unflatten(-1, (4, -1)).mean(1)
    contextual = round(count * 10 / 64)
    ordered = sorted(alive, key=lambda cell: -tile.cls[cell])
    dominant, rest = ordered[: count - contextual - 1], sorted(ordered[count - contextual - 1 :])
    targets = rest[:: len(rest) // contextual][:contextual]
    groups = {target: [target] for target in targets}
    for cell in set(rest) - set(targets):
        groups[max(targets, key=lambda t: torch.cosine_similarity(keys[t], keys[cell], dim=0))].append(cell)
    features = {cell: tile.states[cell] for cell in dominant}
    features |= {target: tile.states[members].mean(0) for target, members in groups.items()}
    features[next(cell for cell in rest if cell not in targets)] = tile.pooled
    return {cell: stock.multi_modal_projector(values) for cell, values in features.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "64", "keep_ratio": 0.5}, "exclude each other"),
        ({"preset": "63"}, "preset='63'; allowed: '192', '128', '64', '640', '320', '160'"),
        ({"contextual_ratio": 1.5}, "contextual_ratio=1.5; allowed: a number from 0 to 1"),
        ({"contextual": "max"}, "contextual='max'; allowed: 'mean', 'sum'"),
        ({"newlines": "row"}, "method 'visionzip' has no option 'newlines'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TokenReductionConfig.from_dict({"method": "visionzip", **options})


def test_presets_are_budgets_per_image():
    options = TokenReductionConfig.from_dict({"method": "visionzip", "preset": 320})
    assert (options.visual_tokens, options.scope, options.keep_ratio) == (320, "image", None)
