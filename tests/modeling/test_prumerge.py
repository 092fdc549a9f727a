"""PruMerge: how many are outliers, what takes in what, by hand and by loops; its own rule and a budget."""

from __future__ import annotations

import pytest
import torch
from tile_cases import decided, reducer_of, shown_tiles, stock_tile, tile_context, tiles_of

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.prumerge import PruMerge
from lmms_tokendrop.modeling.ops.selecting import group_quantiles

ATTENDED = [1.0, 1, 2, 2, 3, 3, 4, 20]
"""Quartiles 1.75 and 3.25: above 5.5 lies one of eight."""


def context(attended: list[list[float]], image: list[int] | None = None):
    """Tiles of which CLS attends each patch in proportion to these numbers, and itself to 4; states count from 0."""
    weights = torch.tensor([[4.0, *row] for row in attended])
    keys = torch.stack([weights.log() * 2**0.5, torch.ones_like(weights)], dim=-1)
    heads = keys.clone()
    heads[:, 0] = torch.tensor([1.0, 0.0])
    heads[:, 0, 0] = 1.0
    states = torch.arange(weights.shape[1], dtype=torch.float32).sub(1).expand(weights.shape).unsqueeze(-1).clone()
    found = tile_context(states, tiles_of(torch.ones(weights[:, 1:].shape, dtype=torch.bool), image), weights[:, None])
    query = torch.tensor([1.0, 0.0]).expand(len(weights), 1, weights.shape[1], 2)
    found.providers["projections"] = lambda ahead: (query, keys.unsqueeze(1))
    return found


@pytest.mark.parametrize(
    ("options", "cells", "chosen"),
    [
        ({}, [6, 7], 1),
        ({"plus": True}, [0, 2, 4, 5, 6, 7], 5),  # 8 outliers' shares, a third: every second, and 7; 1, 3, 5 become 5
        ({"iqr_factor": 0.4}, [5, 6, 7], 2),  # above 3.85
        ({"iqr_factor": 20.0}, [7], 0),  # all become one
        ({"visual_tokens": 4}, [4, 5, 6, 7], 3),
        ({"visual_tokens": 1}, [7], 1),
        ({"visual_tokens": 5, "plus": True}, [0, 2, 4, 6, 7], 4),  # 7, and 0, 2, 4 of the others
        ({"visual_tokens": 8}, list(range(8)), 8),
    ],
)
def test_a_tile_by_hand(options, cells, chosen):
    """Without neighbours those that are chosen are as they were, and one token is the sum of all others."""
    reducer = reducer_of(PruMerge, "prumerge", neighbours=0, **options)
    found, features = decided(reducer, context([ATTENDED]))
    assert found == [cells]
    shares = [number / 40 for number in ATTENDED]
    own = sorted(range(8), key=lambda cell: -ATTENDED[cell])[:chosen] if not options.get("plus") else None
    own = {0, 2, 4, 6, 7} if options == {"plus": True} else {0, 2, 4, 7} if own is None else set(own)
    rest = sum(shares[cell] * cell for cell in range(8) if cell not in own)
    expected = [float(cell) if cell in own else rest for cell in cells]
    torch.testing.assert_close(features.flatten(), torch.tensor(expected))


def test_the_share_of_outliers_is_an_images():
    """Of 16 patches two lie above, both of the first tile: one of each tile stays. Another image has its own share."""
    high, flat = [1.0, 1, 2, 2, 3, 3, 20, 20], [2.0] * 8
    reducer = reducer_of(PruMerge, "prumerge", neighbours=0)
    found, _ = decided(reducer, context([high, flat, ATTENDED], image=[0, 0, 1]))
    assert [len(cells) for cells in found] == [2, 2, 2]
    by_tile = reducer_of(PruMerge, "prumerge", neighbours=0, scope="tile", iqr_factor=0.6)
    found, _ = decided(by_tile, context([high, flat, ATTENDED], image=[0, 0, 1]))
    assert [len(cells) for cells in found] == [3, 1, 2]


def test_quartiles_are_linear_between_values():
    values = torch.tensor([5.0, 1, 20, 3, 2, 4, 7], dtype=torch.float64)
    groups = torch.tensor([0, 0, 2, 0, 0, 0, 2])
    assert group_quantiles(values, groups, 3, 0.25).tolist() == [2, 0, 10.25]
    assert group_quantiles(values, groups, 3, 0.75).tolist() == [4, 0, 16.75]


@torch.no_grad()
def test_features_of_a_model_equal_loops_over_its_tiles(workshop):
    """The attention and the keys are the last block's, of all heads as one; its input are the features."""
    reduction = {"method": "prumerge", "keep_ratio": 0.25, "neighbours": 4}
    model, stock = workshop.reduced(reduction).model, workshop.stock(attention="eager").model
    for pixels, alive, features in shown_tiles(model, workshop.inputs("ragged_batch"), 1).values():
        tile, last = stock_tile(stock, pixels), stock_tile(stock, pixels, 3)
        every = torch.cat([last.cls_key[None], last.keys])
        attention = (every @ last.query / len(last.query) ** 0.5).softmax(-1)[1:]
        chosen = sorted(alive, key=lambda cell: -attention[cell])[: len(features) - 1]
        rest = [cell for cell in alive if cell not in chosen]
        expected = {rest[-1]: sum(attention[cell] * tile.states[cell] for cell in rest)}
        for cell in chosen:
            others = [other for other in alive if other != cell]
            others.sort(key=lambda other: -torch.cosine_similarity(last.keys[cell], last.keys[other], dim=0))
            expected[cell] = tile.states[cell] + sum(attention[other] * tile.states[other] for other in others[:4])
        assert sorted(features) == sorted(expected)
        for cell, row in features.items():
            assert torch.allclose(row, stock.multi_modal_projector(expected[cell]), atol=1e-5)


@torch.no_grad()
def test_without_a_budget_the_picture_decides(workshop):
    """Of 54 and 96 patches; every tile has its token for the rest at least, and a wider bound leaves more."""
    inputs = workshop.inputs("ragged_batch")
    averages = [
        cache_of(workshop.reduced({"method": "prumerge", **options})(**inputs, use_cache=True)).report()
        for options in ({"iqr_factor": 9.0}, {}, {"iqr_factor": 0.3}, {"iqr_factor": 0.3, "plus": True})
    ]
    rows = [report.average_visual_tokens for report in averages]
    assert rows[0] < rows[2] < rows[3]
    assert rows[0] <= rows[1] <= rows[2]


def test_a_budget_replaces_the_rule():
    saved = TokenReductionConfig.from_dict({"method": "prumerge"}).to_dict()
    assert saved["iqr_factor"] == 1.5
    options = TokenReductionConfig.from_dict(TokenReductionConfig.merged(saved, {"visual_tokens": 64}))
    assert (options.iqr_factor, options.visual_tokens) == (None, 64)
    with pytest.raises(ValueError, match="exclude each other"):
        TokenReductionConfig.from_dict({"method": "prumerge", "iqr_factor": 1.5, "keep_ratio": 0.5})


def test_features_far_from_the_last_block_are_refused():
    options = reducer_of(PruMerge, "prumerge").options
    with pytest.raises(ValueError, match=r"last block .* vision_feature_layer: -1, -2"):
        PruMerge(options, Host(4, 64, 42, 4, feature_block=1))
