"""VisionZip: patches that CLS attends stay, the others merge into a few contextual tokens (arXiv 2412.04467)."""

from dataclasses import dataclass
from typing import Any

import torch

from ..core.feature_selection import FeatureOptions, FeatureReducer, cls_row, shown_patches
from ..core.options import option
from ..core.reducer import Context, Keep, Stage
from ..ops.token_ops import evenly_spaced, ordered_indices, top


@dataclass
class VisionZipOptions(FeatureOptions):
    """Options of VisionZip."""

    contextual_ratio: float = option(
        10 / 64, "Share of a tile's tokens that are contextual, rounded; the default is the paper's.", low=0, high=1
    )
    contextual: str = option(
        "mean",
        "A contextual token is the `mean` of its patches (the paper), or the `sum` of its target and the mean of the "
        "others (the release).",
        allowed=("mean", "sum"),
    )
    cls_slot: bool = option(True, "The feature of CLS is one of the dominant tokens, and takes the slot of a patch.")


class VisionZip(FeatureReducer):
    """Keep, per tile, the patches that CLS attends most, and merge the others into contextual tokens.

    Of `n` tokens of a tile, `round(contextual_ratio * n)` are contextual. With `cls_slot` one of the others is the
    feature of CLS. The patches that are not dominant merge into evenly spaced ones of them, each into the one whose key
    is nearest by cosine, keys being means over heads; their features are averaged before the projector. A contextual
    token stands in the slot of that patch, CLS in the first slot that is free. A tile that loses nothing is left alone.
    """

    Options: type[Any] = VisionZipOptions
    adds = True

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Choose dominant patches, then targets, and mix the rest into these."""
        patches = shown_patches(context)
        count = self.count(stage, context.counts)[1] - 1
        whole = count >= patches.sum(-1)
        contextual = torch.round(count.double() * self.options.contextual_ratio).long().masked_fill(whole, 0)
        with_cls = (contextual < count) & ~whole & self.options.cls_slot
        dominant = count - contextual - with_cls.long()
        rest = patches & ~top(cls_row(context), patches, dominant)
        targets = evenly_spaced(rest, contextual)
        free = rest & ~targets & with_cls.unsqueeze(-1)
        slot = free & (free.cumsum(-1) == 1)
        stays = (patches & ~rest) | targets | slot
        stays[:, 0] = True
        return Keep.of(stays, mixed=self._mixed(context.keys(), rest, targets, slot))

    def _mixed(self, keys: torch.Tensor, rest: torch.Tensor, targets: torch.Tensor, slot: torch.Tensor):
        """Places of contextual tokens and of CLS, and the weights of the tokens that they are sums of."""
        cls_place = torch.where(slot.any(-1), slot.long().argmax(-1), -1)
        places = torch.cat([ordered_indices(targets), cls_place.unsqueeze(-1)], dim=1).unsqueeze(-1)
        goal = nearest_target(keys, rest, targets)
        goal[:, 0] = cls_place
        members = ((places >= 0) & (goal.unsqueeze(1) == places)).float()
        whole = members * (targets.unsqueeze(1) & (self.options.contextual == "sum"))
        others = members - whole
        return places[..., 0], whole + others / others.sum(-1, keepdim=True).clamp_min(1)


def nearest_target(keys: torch.Tensor, among: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`[batch, length]`, the target whose key is nearest by cosine; itself for a target, -1 for what is not `among`.

    Parameters
    ----------
    keys : torch.Tensor
        `[batch, length, channels]`.
    among, targets : torch.BoolTensor
        `[batch, length]`; targets are among them.
    """
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    similarity = (unit @ unit.transpose(1, 2)).masked_fill(~targets.unsqueeze(1), float("-inf"))
    places = torch.arange(keys.shape[1], device=keys.device)
    nearest = torch.where(targets, places, similarity.argmax(-1))
    return nearest.masked_fill(~among, -1)
