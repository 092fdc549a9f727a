"""A batch of images cut into tiles, on its way through the vision tower."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .tile_layout import AnyresLayout
from .tiles import Tiles


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
