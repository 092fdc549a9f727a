"""What a budget leaves of each tile before the decoder."""

from dataclasses import dataclass
from typing import Any

import torch

from ..ops.selecting import place_in_group
from ..ops.token_ops import segment_sum
from .budget import Budget, unreachable
from .fusion_selection import FusionCounts


@dataclass(frozen=True)
class TileCounts(FusionCounts):
    """What the counts of a stage in a vision tower can be computed from.

    Attributes
    ----------
    tiles : Tiles
        A tile per row.
    """

    tiles: Any

    def fitted(self, stage: Any, reducer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Text, and CLS with the patches that a budget leaves of each tile, `[batch]` each; see :func:`tile_counts`."""
        return self.text, 1 + tile_counts(reducer.options.budget(), self.tiles, reducer.drop_layers)


def tile_counts(budget: Budget, tiles: Any, layers: tuple[int, ...] = (-1,)) -> torch.Tensor:
    """Patches that each tile keeps, so that decoder layers receive what a budget says, `[tiles]`.

    A group's count, rounded to whole tokens, is shared among its images, one of each first, and an image's among its
    tiles, in proportion to their patches; patches that unpadding removes are none. Five whole tiles get a fifth each.

    Parameters
    ----------
    budget : Budget
        The budget.
    tiles : Tiles
        The tiles.
    layers : tuple[int, ...]
        Decoder layers after which tokens leave; by default these leave before the first, and no others later.

    Raises
    ------
    ValueError
        If it is below one token per image.
    """
    patches = tiles.alive.sum(-1)
    every = torch.arange(len(patches), device=patches.device)
    group = {"tile": every, "image": tiles.image, "request": tiles.request}[budget.scope]
    image = every if budget.scope == "tile" else tiles.image
    images, groups = int(image.max()) + 1, int(group.max()) + 1
    per_image = segment_sum(patches, image, images)
    owner = torch.zeros_like(per_image).scatter(0, image, group)
    least = (per_image > 0).long()
    fewest = segment_sum(least, owner, groups)
    target = budget.target(segment_sum(per_image, owner, groups))
    if bool((target < fewest - 1e-6).any()):
        raise unreachable(target, fewest.double(), budget)
    if layers != (-1,):
        total = segment_sum(per_image, owner, groups)
        target = budget.next_count(total, [], total, fewest, layers, tiles.num_layers)
    count = torch.maximum(target.round().long(), fewest)
    of_images = least + shared(count - fewest, per_image - least, owner)
    return shared(of_images, patches, image)


def shared(totals: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Split totals in proportion to weights, into whole numbers; what rounding down leaves goes to the largest rests.

    Parameters
    ----------
    totals : torch.LongTensor
        `[groups]`, none above the sum of its weights.
    weights, groups : torch.LongTensor
        `[entries]`; weights from 0 on.

    Returns
    -------
    torch.LongTensor
        `[entries]`, none above its weight.
    """
    sums = segment_sum(weights, groups, len(totals))
    product = totals[groups] * weights
    whole, rest = product // sums[groups].clamp_min(1), product % sums[groups].clamp_min(1)
    rank = place_in_group(rest, groups, len(totals))
    return whole + (rank < (totals - segment_sum(whole, groups, len(totals)))[groups]).long()
