"""DivPrune: the most diverse visual tokens stay, by the largest smallest distance (arXiv 2503.02175)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.feature_selection import PAPER_BUDGETS, FeatureOptions, InputReducer
from ..core.options import option
from ..core.reducer import Context, Stage
from ..core.token_groups import TokenGroups
from ..ops.greedy import farthest_first

PRESETS: dict[str, dict] = {**PAPER_BUDGETS, "r098": {"keep_ratio": 0.098}}
"""The papers' budgets, and the ratio of DivPrune's own tables."""


@dataclass
class DivPruneOptions(FeatureOptions):
    """Options of DivPrune."""

    presets: ClassVar[dict[str, dict]] = PRESETS

    preset: str | None = option(
        None, "A budget of the papers, per image, or DivPrune's own ratio.", allowed=tuple(PRESETS)
    )


class DivPrune(InputReducer):
    """Before the first layer, keep the tokens of each group whose smallest cosine distance to each other is largest.

    Chosen greedily among projected features: first the token whose nearest other is farthest, then always the one that
    is farthest from all that were chosen. No attention and no text is read.
    """

    Options: type[Any] = DivPruneOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Minus the number of the pick."""
        groups, count = TokenGroups.of(context), self.count(stage, context.counts)
        features = groups.directions(context)
        picked = farthest_first(features @ features.transpose(1, 2), groups.valid, count)
        return groups.spread(-picked, context)
