"""What a method may know of the tiles of images on their way through a vision tower."""

from dataclasses import dataclass

import torch


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
