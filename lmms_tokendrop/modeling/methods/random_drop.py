"""Random dropping, the control: before the decoder, or at PuMer's places in an encoder of text and image."""

from dataclasses import dataclass

import torch

from ..core.decoder_options import BudgetOptions, NewlineOptions, PositionOptions, SeedOptions
from ..core.fusion_selection import PairOptions
from ..core.reducer import Context, Stage, TokenReducer
from .scored_pruning import InPairs, PruningOptions, ScoredPruning

SEED_STRIDE = 1_000_003


def drawn_scores(seed: int, context: Context, visual: torch.Tensor, totals: list[int]) -> torch.Tensor:
    """A score for each token of an unreduced image, drawn with `seed` and each sample's own seed.

    Parameters
    ----------
    seed : int
        Of the method.
    context : Context
        The stage.
    visual : torch.LongTensor
        `[batch, length]`, number of each visual token among those of its unreduced row; -1 for others.
    totals : list[int]
        Visual tokens of each unreduced row.

    Returns
    -------
    torch.Tensor
        `[batch, length]` float64; a row's scores do not depend on its batch.
    """
    scores = torch.zeros(visual.shape, dtype=torch.float64, device=visual.device)
    for row, sample_seed in enumerate(context.sample_seeds.tolist()):
        generator = torch.Generator().manual_seed((seed * SEED_STRIDE + sample_seed) % 2**63)
        drawn = torch.rand(totals[row], generator=generator, dtype=torch.float64).to(visual.device)
        inside = visual[row] >= 0
        scores[row, inside] = drawn[visual[row, inside]]
    return scores


@dataclass
class RandomDropOptions(SeedOptions, PositionOptions, NewlineOptions, BudgetOptions):
    """Options of random dropping before a decoder."""


class RandomDrop(TokenReducer):
    """Drop visual tokens at random before the first decoder layer, so that every layer receives the same number."""

    Options = RandomDropOptions

    def stages(self) -> tuple[Stage, ...]:
        """One stage, before the first layer."""
        return (Stage("features"),)

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Draw a priority for each visual token."""
        visual = context.tokens.visual
        number = torch.where(visual, visual.cumsum(-1) - 1, -1)
        return drawn_scores(self.options.seed, context, number, visual.sum(-1).tolist())


@dataclass
class RandomPruningOptions(SeedOptions, PruningOptions):
    """Options of random pruning."""


class RandomPruning(ScoredPruning):
    """Drop image tokens at random: each row draws one order of its image, and every stage drops the last of it."""

    Options = RandomPruningOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """The drawn priority of each patch, by its place in the image."""
        tokens = context.tokens
        first = tokens.place.masked_fill(~tokens.image, tokens.owner.shape[1]).amin(-1, keepdim=True)
        number = (tokens.place - first).masked_fill(~tokens.image, -1)
        return drawn_scores(self.options.seed, context, number, context.counts.first_image.tolist())


@dataclass
class PairRandomOptions(PairOptions, RandomPruningOptions):
    """Options of random pruning in pairs of layers."""


class PairRandomPruning(InPairs, RandomPruning):
    """The same in METER."""

    Options = PairRandomOptions
