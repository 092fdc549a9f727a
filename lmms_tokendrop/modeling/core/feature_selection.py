"""What methods share that decide once, before the decoder: on all tokens, or on those of each tile in the tower."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .decoder_options import BudgetOptions, OneFormatOptions, PositionOptions
from .options import option
from .reducer import Context, Stage, TokenReducer

PAPER_BUDGETS = {str(tokens): {"visual_tokens": tokens} for tokens in (192, 128, 64, 640, 320, 160)}
"""The papers' budgets per image: 192/128/64 for LLaVA-1.5 (576 tokens), 640/320/160 for LLaVA-NeXT (2880 tokens, five
tiles of 128/64/32)."""


@dataclass
class FeatureOptions(OneFormatOptions, PositionOptions, BudgetOptions):
    """Options of methods that decide before the decoder; newlines leave. A budget and a `preset` exclude each other."""

    presets: ClassVar[dict[str, dict]] = PAPER_BUDGETS
    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, frozenset({"preset"}))

    preset: str | None = option(None, "A budget of the papers, per image.", allowed=tuple(PAPER_BUDGETS))


class InputReducer(TokenReducer):
    """Decides once, before the first decoder layer, so that every layer receives as much."""

    def stages(self) -> tuple[Stage, ...]:
        """One stage, before the first layer."""
        return (Stage("features"),)


class FeatureReducer(TokenReducer):
    """Decides for each tile behind the block whose output is projected, so that every decoder layer receives as much.

    A budget is shared among tiles in proportion to their patches; see :func:`tile_counts`.
    """

    Options: type[Any] = FeatureOptions
    drop_layers = (-1,)

    def stages(self) -> tuple[Stage, ...]:
        """One stage, in the vision tower."""
        return (Stage("vision", self.host.feature_block, "after_block"),)


def shown_patches(context: Context) -> torch.Tensor:
    """`[tiles, length]`, True for patches that the picture covers, not for CLS and for what unpadding removes."""
    return torch.nn.functional.pad(context.provided("tiles").alive, (1, 0)) & context.valid


def cls_row(context: Context) -> torch.Tensor:
    """Attention `[tiles, length]` float32 of the CLS query in the block just run, mean over heads."""
    return context.attention_rows(context.tokens.place == 0).mean(1)[:, 0]
