"""What a count budget leaves after each stage of MustDrop, planned for one image without running a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lmms_tokendrop.modeling.core.drop_layers import drop_layers
from lmms_tokendrop.modeling.core.options import Reductions
from lmms_tokendrop.modeling.core.tile_layout import Tiles
from lmms_tokendrop.modeling.methods.mustdrop import PAPER_LAYERS, WINDOW, MustDrop
from lmms_tokendrop.modeling.methods.mustdrop_merging import merged_windows
from lmms_tokendrop.modeling.methods.mustdrop_options import MustDropOptions
from lmms_tokendrop.modeling.ops.token_ops import rounded_up
from lmms_tokendrop.modeling.ops.windows import window_cells, window_targets

SIDE = 24
"""Patches along a tile of CLIP ViT-L/14 at 336 pixels."""
SQUARE = (SIDE,) * 5
"""Rows of each tile that unpadding leaves of a square image: the base view and a 2 x 2 grid."""


@dataclass(frozen=True)
class PlannedCounts:
    """Tokens of one image.

    Parameters
    ----------
    forced_merges
        Windows that merge only because the budget asks for it.
    after_merging
        Tokens that enter the decoder.
    key_tokens
        Those among them that never leave.
    stages
        Tokens after each drop.
    """

    forced_merges: int
    after_merging: int
    key_tokens: int
    stages: tuple[int, ...]


def planned_counts(
    reduction: dict[str, Any],
    num_layers: int,
    rows: Sequence[int] = SQUARE,
    *,
    similar: int = 0,
    in_turn: bool = True,
) -> PlannedCounts:
    """Plan MustDrop for one image whose newlines leave.

    Parameters
    ----------
    reduction
        Options beside the method; a count budget per image, ``newlines="drop"``.
    num_layers
        Layers of the decoder.
    rows
        Rows of each tile that unpadding leaves.
    similar
        Number of windows at or above ``merge_threshold``.
    in_turn
        Whether the most similar windows are one of each tile in turn, or all of the first tile, then of the next.

    Returns
    -------
    PlannedCounts
        The counts, which depend on the picture only through which windows are similar.
    """
    options = Reductions({"mustdrop": MustDrop}).from_dict({"method": "mustdrop", **reduction})
    layers = drop_layers(options.layers, num_layers, PAPER_LAYERS)
    alive = (torch.arange(SIDE) < torch.tensor(rows).unsqueeze(-1)).repeat_interleave(SIDE, dim=1)
    windows = window_cells(SIDE, SIDE, WINDOW)
    similarity = _similarity(options, alive[:, windows].any(-1), similar, in_turn)
    tile = torch.zeros(len(rows), dtype=torch.long)
    tiles = Tiles(
        grid=(SIDE, SIDE),
        alive=alive,
        image=tile,
        request=tile,
        line=torch.full_like(alive, -1, dtype=torch.long),
        line_owner=torch.zeros(0, dtype=torch.long),
        num_layers=num_layers,
    )
    merged, forced = merged_windows(options, layers, tiles, windows, similarity)
    stays = window_targets(windows, alive, merged) == torch.arange(SIDE * SIDE)
    left = stays & alive
    least = rounded_up(left.sum(-1).double() * options.key_ratio).sum(0, keepdim=True).clamp_min(1)
    received, stages, current = [], [], left.sum().unsqueeze(0)
    for layer in range(num_layers):
        received.append(current)
        if layer in layers:
            budget, available = options.budget(), alive.sum().unsqueeze(0)
            current = budget.next_count(available, received, current, least, layers, num_layers)
            stages.append(int(current))
    return PlannedCounts(int(forced), int(received[0]), int(least), tuple(stages))


def _similarity(options: MustDropOptions, there: torch.Tensor, similar: int, in_turn: bool) -> torch.Tensor:
    """Similarities `[tiles, windows]` in the asked order, the first `similar` of them at the threshold or above."""
    tiles, windows = there.shape
    rank = torch.arange(tiles * windows)
    rank = rank.view(windows, tiles).T if in_turn else rank.view(tiles, windows)
    order = rank.masked_fill(~there, tiles * windows).flatten().argsort().argsort().view_as(there)
    similarity = options.merge_threshold + (similar - 0.5 - order) / order.numel()
    return similarity.masked_fill(~there, float("-inf"))
