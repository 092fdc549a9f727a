"""Pruning by the attention of a CLS token."""

from dataclasses import dataclass
from typing import Any

import torch

from ..core.fusion_selection import PruningOptions, ScoredPruning
from ..core.options import option
from ..core.reducer import Context, Stage


@dataclass
class ClsAttentionOptions(PruningOptions):
    """Options of pruning by the attention of a CLS token."""

    cls_token: str = option("text", "The CLS token whose attention counts.", allowed=("text", "image"))


class ClsAttentionPruning(ScoredPruning):
    """Keep the image tokens that a CLS token attends most, the text's (which heads read) or the image's."""

    Options: type[Any] = ClsAttentionOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """The attention row of the CLS token."""
        place = context.tokens.text_length if getattr(self.options, "cls_token", "text") == "image" else 0
        return context.attention_rows(context.tokens.place == place).mean(1)[:, 0]


class PairClsAttentionPruning(ClsAttentionPruning):
    """Keep the image tokens that the text's CLS attends most, in METER."""

    Options: type[Any] = PruningOptions
