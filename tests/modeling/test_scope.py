"""SCOPE: coverage times attention, against loops, and that an attended patch survives."""

from __future__ import annotations

import pytest
import torch
from tile_cases import decided, reducer_of, shown_tiles, stock_tile, tile_context, tiles_of

from lmms_tokendrop.modeling.methods.scope import Scope


def by_loops(tile, alive: list[int], count: int, alpha: float) -> list[int]:
    similarity = torch.cosine_similarity(tile.states.unsqueeze(0), tile.states.unsqueeze(1), dim=-1)
    covered, chosen = dict.fromkeys(alive, 0.0), []
    for _ in range(count):
        gains = {
            cell: float(tile.cls[cell]) ** alpha * sum(max(0.0, float(similarity[cell, i]) - covered[i]) for i in alive)
            for cell in alive
            if cell not in chosen
        }
        chosen.append(max(gains, key=gains.__getitem__))
        covered = {i: max(covered[i], float(similarity[chosen[-1], i])) for i in alive}
    return sorted(chosen)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
@torch.no_grad()
def test_a_tile_equals_loops(workshop, alpha):
    model = workshop.reduced({"method": "scope", "keep_ratio": 0.2, "alpha": alpha}).model
    stock = workshop.stock(attention="eager").model
    for pixels, alive, features in shown_tiles(model, workshop.inputs("one_image"), 0).values():
        tile = stock_tile(stock, pixels)
        assert sorted(features) == by_loops(tile, alive, len(features), alpha)
        for cell, row in features.items():
            assert torch.allclose(row, stock.multi_modal_projector(tile.states[cell]), atol=1e-5)


@pytest.mark.parametrize(("alpha", "cells"), [(0.0, [0, 3]), (1.0, [2, 3])])
def test_attention_decides_among_patches_that_cover_the_same(alpha, cells):
    """Patches 0, 1 and 2 are alike, 3 is another; CLS attends 2."""
    states = torch.tensor([[[1.0, 1], [1, 0], [1, 0], [1, 0], [0, 1]]])
    attention = torch.tensor([[[0.1, 0.1, 0.1, 0.5, 0.2]]])
    reducer = reducer_of(Scope, "scope", visual_tokens=2, alpha=alpha)
    found, features = decided(reducer, tile_context(states, tiles_of(torch.ones(1, 4, dtype=torch.bool)), attention))
    assert found == [cells]
    assert features.tolist() == [[1, 0], [0, 1]]
