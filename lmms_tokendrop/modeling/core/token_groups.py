"""The visual tokens of each group of a budget, side by side."""

from dataclasses import dataclass

import torch

from ..ops.selecting import tokens_of_groups
from .reducer import Context


@dataclass(frozen=True)
class TokenGroups:
    """Patches before the decoder that can stay, a row per group.

    Attributes
    ----------
    row, place : torch.LongTensor
        `[groups, longest]`, sequence of the batch and place in it of each patch.
    valid : torch.BoolTensor
        `[groups, longest]`, False behind the last patch of a group.
    """

    row: torch.Tensor
    place: torch.Tensor
    valid: torch.Tensor

    @classmethod
    def of(cls, context: Context) -> "TokenGroups":
        """Those of a stage's groups, without newlines and what the vision tower left out."""
        groups = context.counts.groups.masked_fill(~context.tokens.patches, -1)
        return cls(*tokens_of_groups(groups, len(context.counts.full)))

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """`[groups, longest, ...]` of `values [batch, length, ...]`."""
        return values[self.row, self.place]

    def directions(self, context: Context) -> torch.Tensor:
        """Their features `[groups, longest, channels]` float32, made unit vectors."""
        return torch.nn.functional.normalize(self.gather(context.hidden_states).float(), dim=-1)

    def spread(self, values: torch.Tensor, context: Context) -> torch.Tensor:
        """`[batch, length]` float64 of `values [groups, longest]`, 0 for everything else."""
        spread = torch.zeros(context.valid.shape, dtype=torch.float64, device=values.device)
        spread[self.row[self.valid], self.place[self.valid]] = values[self.valid].double()
        return spread
