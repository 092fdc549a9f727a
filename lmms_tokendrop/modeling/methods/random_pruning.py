"""Random pruning, the control, at PuMer's places in an encoder of text and image."""

from dataclasses import dataclass

import torch

from ..core.fusion_selection import PruningOptions, ScoredPruning
from ..core.options import SeedOptions
from ..core.reducer import Context, Stage
from ..ops.token_ops import drawn_scores


@dataclass
class RandomPruningOptions(SeedOptions, PruningOptions):
    """Options of random pruning."""


class RandomPruning(ScoredPruning):
    """Drop image tokens at random: each row draws one order of its image, and every stage drops the last of it."""

    Options = RandomPruningOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """The drawn priority of each patch, by its place in the image."""
        number = context.tokens.place - context.tokens.text_length
        return drawn_scores(self.options.seed, context.sample_seeds, number, context.counts.first_image.tolist())
