"""Evenly spaced visual tokens, another control."""

from dataclasses import dataclass

import torch

from ..core.decoder_options import BudgetOptions, OneFormatOptions, PositionOptions
from ..core.feature_selection import InputReducer
from ..core.reducer import Context, Keep, Stage
from ..ops.selecting import place_in_group
from ..ops.token_ops import segment_sum


@dataclass
class UniformOptions(OneFormatOptions, PositionOptions, BudgetOptions):
    """Options of keeping evenly spaced tokens."""


class UniformDrop(InputReducer):
    """Keep evenly spaced visual tokens before the first decoder layer; newlines leave.

    Of the n tokens of a group, in the order in which they enter the decoder, c stay: those at which the running share
    `place * c / n` passes a half. An image that would get none in a request's budget keeps its first token.
    """

    Options = UniformOptions

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Mark the places of each group and fit the budget."""
        count = self.count(stage, context.counts)
        patches = context.tokens.visual & ~context.tokens.newline
        groups = context.counts.groups.masked_fill(~patches, -1)
        total = segment_sum(torch.ones_like(groups), groups, len(count)).clamp_min(1)[groups]
        place = place_in_group(torch.zeros_like(groups), groups, len(count))
        marked = patches & ((place * count[groups] + total // 2) % total < count[groups])
        return context.best(marked.double(), count)
