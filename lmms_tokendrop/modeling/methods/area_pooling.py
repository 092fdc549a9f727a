"""A smaller image: the projected grid of each tile pooled by area, the baseline without any choice."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..core.feature_selection import FeatureOptions, InputReducer
from ..core.reducer import Context, Keep, Stage
from ..core.selection import DecoderCounts
from ..core.tile_counts import divided
from ..core.visual_tokens import VisualTokens
from ..ops.token_ops import segment_sum


class AreaPooling(InputReducer):
    """Before the first layer, pool each tile to the largest grid of its shape that its share of the budget pays for.

    A whole tile of `s x s` patches with `n` tokens becomes `g x g`, `g` the square root of `n` rounded down; what
    unpadding leaves of a tile keeps its shape as nearly. A cell is the mean of the projected features that it covers,
    of patches by the area that lies in it, and stands in the slot of the patch at its middle. Fewer tokens than the
    budget may be left: the report says how many.
    """

    Options: type[Any] = FeatureOptions
    adds = True

    def count(self, stage: Stage, counts: DecoderCounts) -> torch.Tensor:
        """The cells of each group's grids."""
        tiles, (height, width) = self._grids(stage, counts)
        return segment_sum(height * width, tiles.owner(counts.groups), len(counts.full))

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Keep the slots of cells, and mix patches into them."""
        tiles, grids = self._grids(stage, context.counts)
        row, slot, weights = tiles.cells(context.tokens, *grids)
        sizes = row.bincount(minlength=len(context.valid)).tolist()
        places = pad_sequence(slot.split(sizes), batch_first=True, padding_value=-1)
        mixed = pad_sequence(weights.float().split(sizes), batch_first=True)
        stays = context.valid & ~context.tokens.visual
        stays[row, slot] = True
        return Keep.of(stays, mixed=(places, mixed))

    def _grids(self, stage: Stage, counts: DecoderCounts):
        """The tiles, and height and width of the grid that each is pooled to, `[tiles]` each."""
        tiles, count = Rectangles.of(counts.tokens), counts.fitted(stage, self)
        group, image = tiles.owner(counts.groups), tiles.owner(counts.tokens.groups("image")[0])
        image = group if self.options.scope == "tile" else image
        return tiles, tiles.grids(divided(count, tiles.height * tiles.width, image, group))


@dataclass(frozen=True)
class Rectangles:
    """What the picture covers of each tile.

    Attributes
    ----------
    tile : torch.LongTensor
        `[batch, length]`, number of each patch's tile in the batch; -1 for text and newlines.
    top, left, height, width : torch.LongTensor
        `[tiles]`, in patches.
    """

    tile: torch.Tensor
    top: torch.Tensor
    left: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor

    @classmethod
    def of(cls, tokens: VisualTokens) -> "Rectangles":
        """Of the tokens `[batch, length]` of a batch, before any left."""
        number, _ = tokens.groups("tile")
        tile = number.masked_fill(tokens.newline, -1)
        inside = tile >= 0
        top, left, bottom, right = (
            torch.zeros(int(number.max()) + 1, dtype=torch.long, device=tile.device).scatter_reduce(
                0, tile[inside], values[inside] + behind, how, include_self=False
            )
            for how, behind in (("amin", 0), ("amax", 1))
            for values in (tokens.row, tokens.column)
        )
        return cls(tile, top, left, bottom - top, right - left)

    def owner(self, groups: torch.Tensor) -> torch.Tensor:
        """The group of each tile, `[tiles]`, from that of each token, `[batch, length]`."""
        inside = self.tile >= 0
        return torch.zeros_like(self.top).scatter(0, self.tile[inside], groups[inside])

    def grids(self, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Height and width, `[tiles]` each, of the largest grids of their shape with at most `counts [tiles]` cells."""
        scale = (counts.double() / (self.height * self.width).clamp_min(1)).sqrt()
        height, width = ((side * scale + 1e-9).floor().long().clamp_min(1) for side in (self.height, self.width))
        height = torch.minimum(height, counts)
        return height, torch.minimum(width, counts // height.clamp_min(1))

    def cells(self, tokens: VisualTokens, height: torch.Tensor, width: torch.Tensor):
        """The cells of grids, tile after tile.

        Parameters
        ----------
        tokens : VisualTokens
            `[batch, length]`.
        height, width : torch.LongTensor
            `[tiles]`.

        Returns
        -------
        tuple[torch.Tensor, torch.Tensor, torch.Tensor]
            `[cells]` sequence of the batch, `[cells]` place of the patch at the middle, and `[cells, length]` float64
            shares of patches, which add up to 1.
        """
        sizes = height * width
        tile = torch.repeat_interleave(sizes)
        number = torch.arange(len(tile), device=tile.device) - (sizes.cumsum(0) - sizes)[tile]
        every = torch.arange(len(self.tile), device=tile.device).unsqueeze(-1).expand_as(self.tile)
        row = self.owner(every)[tile]
        weights = (self.tile[row] == tile.unsqueeze(-1)).double()
        middle = weights > 0
        sides = (
            (tokens.row, number // width[tile], self.top, self.height, height),
            (tokens.column, number % width[tile], self.left, self.width, width),
        )
        for place, cell, start, full, pooled in sides:
            step = (full.double() / pooled.clamp_min(1))[tile]
            begin, patch = (start[tile] + cell * step).unsqueeze(-1), place[row].double()
            end = begin + step.unsqueeze(-1)
            weights = weights * (torch.minimum(patch + 1, end) - torch.maximum(patch, begin)).clamp_min(0)
            middle = middle & (patch == ((begin + end) / 2).floor())
        return row, middle.long().argmax(-1), weights / weights.sum(-1, keepdim=True)
