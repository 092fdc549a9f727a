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
        rows = torch.zeros_like(context.valid)
        rows[:, 0] = True
        return context.attention_rows(self.cls_rows(context, rows)).mean(1)[:, 0]

    def cls_rows(self, context: Context, text_cls: torch.Tensor) -> torch.Tensor:
        """`[batch, length]`, True for the CLS token that counts."""
        return text_cls if self.options.cls_token == "text" else context.tokens.image_cls


class PairClsAttentionPruning(ClsAttentionPruning):
    """Keep the image tokens that the text's CLS attends most, in METER."""

    Options: type[Any] = PruningOptions

    def cls_rows(self, context: Context, text_cls: torch.Tensor) -> torch.Tensor:
        """The text's."""
        return text_cls
