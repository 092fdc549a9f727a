"""SCOPE: patches that cover the others and that CLS attends stay (arXiv 2510.24214)."""

from dataclasses import dataclass
from typing import Any

import torch

from ..core.feature_selection import FeatureOptions, FeatureReducer, cls_row, shown_patches
from ..core.options import option
from ..core.reducer import Context, Stage
from ..ops.greedy import coverage_first


@dataclass
class ScopeOptions(FeatureOptions):
    """Options of SCOPE."""

    alpha: float = option(1.0, "Power of the attention by which the gain in coverage is multiplied.", low=0)


class Scope(FeatureReducer):
    """Keep, per tile, the patches that add most to coverage times the attention of CLS, one after the other.

    A patch is covered by the largest cosine of its feature to one that stays. The gain of another is what all patches
    are covered better by it, times the power `alpha` of what CLS attends it.
    """

    Options: type[Any] = ScopeOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Minus the number of the pick."""
        patches = shown_patches(context)
        states = torch.nn.functional.normalize(context.hidden_states.float(), dim=-1)
        count = self.count(stage, context.counts)[1] - 1
        weight = cls_row(context) ** self.options.alpha
        rank = coverage_first(states @ states.transpose(1, 2), weight, patches, count)
        return -rank.double().masked_fill(~patches, float("inf"))
