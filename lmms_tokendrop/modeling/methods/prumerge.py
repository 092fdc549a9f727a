"""PruMerge: patches that CLS attends stay and take in their like; the others become one (arXiv 2403.15388)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.decoder_options import share_option
from ..core.feature_selection import FeatureOptions, FeatureReducer, shown_patches
from ..core.options import option
from ..core.reducer import Context, Host, Keep, Stage
from ..ops.selecting import group_quantiles
from ..ops.token_ops import evenly_spaced, ordered_indices, segment_sum, take_tokens, top

SPACED = 3
"""Evenly spaced patches for each that attention chose, in the "+" form."""


@dataclass
class PruMergeOptions(FeatureOptions):
    """Options of PruMerge. A count budget, a `preset` and `iqr_factor` exclude each other."""

    alternatives: ClassVar[tuple] = (*FeatureOptions.alternatives, frozenset({"iqr_factor"}))
    usual: ClassVar[dict[str, Any]] = {"iqr_factor": 1.5}
    calibrated: ClassVar[tuple[str, float] | None] = ("iqr_factor", 100.0)

    keep_ratio: float | None = share_option("without a budget, `iqr_factor` decides.")
    iqr_factor: float | None = option(
        None,
        "The data decide: how many patches of a `scope` are attended above the third quartile by more than so many "
        "interquartile ranges. Default without a budget or preset: 1.5.",
        low=0,
    )
    plus: bool = option(False, "PruMerge+: three evenly spaced patches for each that attention chose.")
    neighbours: int = option(32, "Patches that each one that stays takes in, those with the nearest keys.", low=0)


class PruMerge(FeatureReducer):
    """Keep, per tile, the patches that CLS attends most; each takes in its like, and one token stands for the others.

    The attention is that of the tower's last block, of all heads as one. A patch that stays gets the features of those
    with the nearest keys added, each times its attention; the others, times theirs, add up to one token more, in the
    slot of the last of them. Without a budget the outliers of an image's attention say which share of each tile stays,
    none where nothing stands out, so that one token is left of a tile; a budget counts the one token more, which a tile
    of a single token does without.
    """

    Options: type[Any] = PruMergeOptions
    adds = True

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        self.ahead = host.vision_layers - 1 - host.feature_block
        if self.ahead not in (0, 1):
            raise ValueError("prumerge reads the tower's last block beside the features; vision_feature_layer: -1, -2")

    def count(self, stage: Stage, counts: Any):
        """What the budget leaves; without one it depends on the data."""
        return super().count(stage, counts) if self.options.iqr_factor is None else None

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Choose, take in, and gather the rest."""
        patches = shown_patches(context)
        query, key = (part.transpose(1, 2).flatten(2).float() for part in context.provided("projections", self.ahead))
        attention = ((query[:, :1] @ key.transpose(1, 2))[:, 0] / key.shape[-1] ** 0.5).softmax(-1)
        if self.options.iqr_factor is None:
            chosen, gathers = self._budgeted(self.count(stage, context.counts)[1] - 1, patches, attention)
        else:
            chosen, gathers = self._outlying(context, patches, attention)
        rest = patches & ~chosen & gathers.unsqueeze(-1)
        slot = rest & (rest.cumsum(-1) == rest.sum(-1, keepdim=True))
        stays = chosen | slot
        stays[:, 0] = True
        whole = (chosen == patches).all(-1, keepdim=True)
        places = torch.cat([ordered_indices(chosen & ~whole), ordered_indices(slot)], dim=1)
        taken = torch.where(slot.unsqueeze(-1), (attention * rest).unsqueeze(1), self._near(key, patches, attention))
        return Keep.of(stays, mixed=(places, take_tokens(taken, places.clamp_min(0))))

    def _budgeted(self, count: torch.Tensor, patches: torch.Tensor, attention: torch.Tensor):
        """`[tiles, length]`, the patches that stay for themselves, and whether the others become a token, `[tiles]`."""
        gathers = (count > 1) & (count < patches.sum(-1))
        alone = count - gathers.long()
        if not self.options.plus:
            return top(attention, patches, alone), gathers
        chosen = top(attention, patches, (alone + SPACED) // (1 + SPACED))
        return chosen | evenly_spaced(patches & ~chosen, alone - chosen.sum(-1)), gathers

    def _outlying(self, context: Context, patches: torch.Tensor, attention: torch.Tensor):
        """The same, of each tile as large a share as there are outliers among the patches of its group."""
        tiles = context.provided("tiles")
        every = torch.arange(len(patches), device=patches.device)
        group = {"tile": every, "image": tiles.image, "request": tiles.request}[self.options.scope]
        groups, group = int(group.max()) + 1, group.unsqueeze(-1).expand_as(patches)
        values, owner = attention[patches].double(), group[patches]
        low, high = (group_quantiles(values, owner, groups, share) for share in (0.25, 0.75))
        outliers = values > (high + self.options.iqr_factor * (high - low))[owner]
        total, found = (segment_sum(marks.long(), owner, groups) for marks in (torch.ones_like(outliers), outliers))
        found, total = found[group[:, 0]], total[group[:, 0]].clamp_min(1)
        chosen = top(attention, patches, patches.sum(-1) * found // total)
        if self.options.plus:
            step = (total // found.clamp_min(1) // SPACED).clamp_min(1).unsqueeze(-1)
            chosen = chosen | (patches & ((patches.cumsum(-1) - 1) % step == 0) & (found > 0).unsqueeze(-1))
        return chosen, torch.ones_like(chosen[:, 0])

    def _near(self, key: torch.Tensor, patches: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """`[tiles, length, length]`, 1 for each patch itself, and attention of those with the nearest keys."""
        unit = torch.nn.functional.normalize(key, dim=-1)
        itself = torch.eye(patches.shape[1], dtype=torch.bool, device=key.device)
        similarity = (unit @ unit.transpose(1, 2)).masked_fill(itself | ~patches.unsqueeze(1), float("-inf"))
        found = similarity.topk(min(self.options.neighbours, patches.shape[1]), dim=-1)
        taken = attention.unsqueeze(1).expand_as(similarity).gather(2, found.indices) * found.values.isfinite()
        return itself.to(attention.dtype) + torch.zeros_like(similarity).scatter(2, found.indices, taken)
