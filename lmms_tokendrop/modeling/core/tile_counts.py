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
        counts = tile_counts(reducer.options.budget(), self.tiles, reducer.drop_layers, reducer.protected_share)
        return self.text, 1 + counts


def tile_counts(
    budget: Budget, tiles: Any, layers: tuple[int, ...] = (-1,), protected_share: float = 0.0
) -> torch.Tensor:
    """Patches that each tile keeps, so that decoder layers receive what a budget says, `[tiles]`.

    A group's count is rounded to whole tokens and divided by :func:`divided`; patches that unpadding removes are none.

    Parameters
    ----------
    budget : Budget
        The budget.
    tiles : Tiles
        The tiles.
    layers : tuple[int, ...]
        Decoder layers after which tokens leave; by default these leave before the first, and no others later.
    protected_share : float
        Share of what a tile keeps that later drops must keep too, rounded up.

    Raises
    ------
    ValueError
        If it is below one token per image.
    """
    patches = tiles.alive.sum(-1)
    every = torch.arange(len(patches), device=patches.device)
    group = {"tile": every, "image": tiles.image, "request": tiles.request}[budget.scope]
    image, groups = every if budget.scope == "tile" else tiles.image, int(group.max()) + 1
    total, fewest = segment_sum(patches, group, groups), images_of_groups(patches, image, group, groups)
    target = budget.target(total)
    if bool((target < fewest - 1e-6).any()):
        raise unreachable(target, fewest.double(), budget)
    if layers != (-1,):
        protected = (protected_share, segment_sum((patches > 0).long(), group, groups)) if protected_share else None
        target = budget.next_count(total, [], total, fewest, layers, tiles.num_layers, protected)
    return divided(torch.maximum(target.round().long(), fewest), patches, image, group)


def images_of_groups(patches: torch.Tensor, image: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Images with patches in each group, `[groups]`; see :func:`divided`."""
    per_image = segment_sum(patches, image, int(image.max()) + 1)
    owner = torch.zeros_like(per_image).scatter(0, image, group)
    return segment_sum((per_image > 0).long(), owner, groups)


def divided(counts: torch.Tensor, patches: torch.Tensor, image: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Divide the tokens of groups among their images, of which each gets one first, and an image's among its tiles.

    Shares are in proportion to patches: five whole tiles get a fifth each.

    Parameters
    ----------
    counts : torch.LongTensor
        `[groups]`, from one token per image to all patches.
    patches, image, group : torch.LongTensor
        `[tiles]`: patches of each tile, its image, which is in one group, and its group.

    Returns
    -------
    torch.LongTensor
        `[tiles]`.
    """
    per_image = segment_sum(patches, image, int(image.max()) + 1)
    owner, least = torch.zeros_like(per_image).scatter(0, image, group), (per_image > 0).long()
    of_images = least + shared(counts - segment_sum(least, owner, len(counts)), per_image - least, owner)
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
    sums, product = segment_sum(weights, groups, len(totals)).clamp_min(1)[groups], totals[groups] * weights
    whole, rest = product // sums, product % sums
    rank = place_in_group(rest, groups, len(totals))
    return whole + (rank < (totals - segment_sum(whole, groups, len(totals)))[groups]).long()
