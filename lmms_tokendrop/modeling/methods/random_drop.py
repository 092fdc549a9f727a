"""Random dropping before the decoder, the control."""

from dataclasses import dataclass

import torch

from ..core.decoder_options import BudgetOptions, NewlineOptions, PositionOptions
from ..core.feature_selection import InputReducer
from ..core.options import SeedOptions
from ..core.reducer import Context, Stage
from ..ops.token_ops import drawn_scores


@dataclass
class RandomDropOptions(SeedOptions, PositionOptions, NewlineOptions, BudgetOptions):
    """Options of random dropping before a decoder."""


class RandomDrop(InputReducer):
    """Drop visual tokens at random before the first decoder layer, so that every layer receives the same number."""

    Options = RandomDropOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Draw a priority for each visual token."""
        visual = context.tokens.visual
        number = torch.where(visual, visual.cumsum(-1) - 1, -1)
        return drawn_scores(self.options.seed, context.sample_seeds, number, visual.sum(-1).tolist())
