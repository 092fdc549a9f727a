"""Images cut into tiles: where their visual tokens lie, and what a method may know of the tiles."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .fusion_selection import FusionCounts
from .tile_counts import TileCounts

NEWLINE = -1


@dataclass
class AnyresLayout:
    """The tokens of a batch of images, as the model packs them.

    Attributes
    ----------
    tiles : list[torch.LongTensor]
        Per image `[tokens]`, the tile; newlines have the tile that they end.
    cells : list[torch.LongTensor]
        Per image `[tokens]`, the patch cell in its tile; -1 for newlines.
    lines : list[torch.LongTensor]
        Per image `[tokens]`, the row of the image that a newline ends; -1 for a view without newlines.
    first_tile : list[int]
        Per image, the number of its first tile in the batch of tiles.
    """

    tiles: list[torch.Tensor]
    cells: list[torch.Tensor]
    lines: list[torch.Tensor]
    first_tile: list[int]


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

    def counts(self, known: FusionCounts) -> TileCounts:
        """What counts can be computed from in the tower, and the tiles."""
        return TileCounts(**vars(known), tiles=self)


@dataclass(frozen=True)
class TiledImages:
    """A batch of images cut into tiles.

    Attributes
    ----------
    pixel_values : torch.Tensor
        `[tiles, 3, height, width]`.
    layers : list[int]
        Hidden states of the tower whose features are wanted.
    tiles_per_image : list[int]
        Tiles of each image, base view first.
    layout : AnyresLayout
        Where the tokens lie.
    pack : Callable
        See :func:`anyres_layout`.
    tiles : Tiles or None
        What a method may know of them; None where it has no stage in the tower.
    """

    pixel_values: torch.Tensor
    layers: list[int]
    tiles_per_image: list[int]
    layout: AnyresLayout
    pack: Callable[..., list[torch.Tensor]]
    tiles: Tiles | None


def anyres_layout(pack, tiles_per_image: list[int], cells: int) -> AnyresLayout:
    """Let the model pack coordinates in place of features, and read off what went where.

    Parameters
    ----------
    pack : Callable
        From per-image features `[tiles, cells, channels]` and the row of a newline, if it packs any, to packed rows,
        `[tokens, channels]` per image: the model's own packing.
    tiles_per_image : list[int]
        Tiles of each image, base view first.
    cells : int
        Patches per tile.

    Returns
    -------
    AnyresLayout
        The layout.
    """
    coordinates = [
        torch.stack(torch.meshgrid(torch.arange(count), torch.arange(cells), indexing="ij"), dim=-1).double()
        for count in tiles_per_image
    ]
    packed = pack(coordinates, torch.full((2,), float(NEWLINE), dtype=torch.double))
    layout = AnyresLayout([], [], [], [])
    for image, rows in enumerate(packed):
        tile, cell = rows.long().unbind(-1)
        newline = cell == NEWLINE
        line = newline.long().cumsum(0) - newline.long()
        if not newline.any():
            line = torch.full_like(tile, -1)
        elif tiles_per_image[image] > 1:
            line = line.masked_fill((tile == 0) & ~newline, -1)
        last_patch = torch.where(newline, 0, torch.arange(len(tile))).cummax(0).values
        layout.tiles.append(tile[last_patch])
        layout.cells.append(cell)
        layout.lines.append(line)
        layout.first_tile.append(sum(tiles_per_image[:image]))
    return layout


def pack_flat(features: list[torch.Tensor], newline: torch.Tensor | None = None) -> list[torch.Tensor]:
    """From the tiles `[tiles, cells, channels]` of each image to its rows, one tile behind the other, no newlines."""
    return [image.flatten(0, 1) for image in features]
