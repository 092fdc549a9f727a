"""A batch of images cut into tiles, on its way through the vision tower."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .anyres_layout import AnyresLayout
from .eager_parts import on_host
from .stages import Keep, Stage, TokenReducer, VisionContext


class VisionDecision:
    """Asks a reducer at its stage inside the tower, and remembers what it said.

    Parameters
    ----------
    reducer : TokenReducer
        The method.
    stage : Stage
        The stage.
    context : VisionContext
        What the reducer may read, but for the states.

    Attributes
    ----------
    keep : Keep or None
        The decision; None before it.
    """

    def __init__(self, reducer: TokenReducer, stage: Stage, context: VisionContext):
        self.reducer, self.stage, self.context = reducer, stage, context
        self.keep: Keep | None = None

    @on_host
    def __call__(self, patches: torch.Tensor) -> Keep:
        """Decide, from patch states `[tiles, cells, channels]`."""
        self.context.hidden_states = patches
        self.keep = self.reducer.keep(self.stage, self.context)
        return self.keep


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
    decide : VisionDecision or None
        What decides inside the tower; None: nothing does.
    """

    pixel_values: torch.Tensor
    layers: list[int]
    tiles_per_image: list[int]
    layout: AnyresLayout
    pack: Callable[..., list[torch.Tensor]]
    decide: VisionDecision | None
