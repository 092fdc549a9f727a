"""Where the visual tokens of any-resolution images lie: tiles, rows, columns, newlines."""

from dataclasses import dataclass

import torch

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
