"""Images cut into tiles: where their visual tokens lie, and what a method may know of the tiles."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from .fusion_selection import FusionCounts
from .tile_counts import TileCounts
from .visual_tokens import VisualTokens

NEWLINE = -1


@dataclass(frozen=True)
class Tiles:
    """Tiles of a batch of images, one row each.

    Attributes
    ----------
    grid : tuple[int, int]
        Height and width of the patch grid.
    alive : torch.BoolTensor
        `[tiles, cells]`; False for cells that unpadding removes.
    image, request : torch.LongTensor
        `[tiles]`, the image, and the request, that a tile belongs to.
    line : torch.LongTensor
        `[tiles, cells]`, row of the image that ends in a newline, unique over images; -1 for none.
    line_owner : torch.LongTensor
        `[lines]`, the tile that the newline of a line ends.
    num_layers : int
        Number of decoder layers.
    """

    grid: tuple[int, int]
    alive: torch.Tensor
    image: torch.Tensor
    request: torch.Tensor
    line: torch.Tensor
    line_owner: torch.Tensor
    num_layers: int

    def to(self, device: torch.device | str) -> "Tiles":
        """The same on a device."""
        held = (getattr(self, entry.name) for entry in fields(self))
        moved: list[Any] = [one.to(device) if isinstance(one, torch.Tensor) else one for one in held]
        return Tiles(*moved)

    def counts(self, known: FusionCounts) -> TileCounts:
        """What counts can be computed from in the tower, and the tiles."""
        return TileCounts(**vars(known), tiles=self)


def anyres_layout(pack: Callable, tiles_per_image: list[int], side: int) -> list[VisualTokens]:
    """Let the model pack coordinates in place of features, and read off what went where.

    Parameters
    ----------
    pack : Callable
        From per-image features `[tiles, cells, channels]` and the row of a newline, if it packs any, to packed rows,
        `[tokens, channels]` per image: the model's own packing.
    tiles_per_image : list[int]
        Tiles of each image, base view first.
    side : int
        Patches along a tile.

    Returns
    -------
    list[VisualTokens]
        Per image `[tokens]`. Newlines have the tile and the row that they end.
    """
    cells, images = torch.arange(side**2), []
    coordinates = [torch.cartesian_prod(torch.arange(n), cells).view(n, -1, 2).double() for n in tiles_per_image]
    for number, rows in enumerate(pack(coordinates, torch.full((2,), float(NEWLINE), dtype=torch.double))):
        tile, cell = rows.long().unbind(-1)
        newline = cell == NEWLINE
        without_line = ~newline & (((tile == 0) & (tiles_per_image[number] > 1)) | ~newline.any())
        line = (newline.long().cumsum(0) - newline.long()).masked_fill(without_line, -1)
        last_patch = torch.where(newline, 0, torch.arange(len(tile))).cummax(0).values
        images.append(
            VisualTokens(
                image=torch.full_like(tile, number),
                tile=tile[last_patch],
                row=cell[last_patch] // side,
                column=torch.where(newline, side, cell % side),
                line=line,
                newline=newline,
                present=torch.ones_like(newline),
            )
        )
    return images


def pack_flat(features: list[torch.Tensor], newline: torch.Tensor | None = None) -> list[torch.Tensor]:
    """From the tiles `[tiles, cells, channels]` of each image to its rows, one tile behind the other, no newlines."""
    return [image.flatten(0, 1) for image in features]
