"""Baselines: no reduction, and random dropping before the decoder."""

import torch

from .selection import keep_by_priority, next_counts
from .stages import Keep, Stage, StageContext, TokenReducer

SEED_STRIDE = 1_000_003


class NoReduction(TokenReducer):
    """The unreduced model, through the same code."""


class RandomDrop(TokenReducer):
    """Drop visual tokens at random before the first decoder layer, so that every layer receives the same number.

    Each sequence draws with `seed` and its own sample seed, so its choice does not depend on its batch.
    """

    options = frozenset({"visual_tokens", "keep_ratio", "scope", "counter", "newlines", "position_mode", "seed"})

    def stages(self) -> tuple[Stage, ...]:
        """One stage, before the first layer."""
        return (Stage("prefill", -1),)

    def keep(self, stage: Stage, context: StageContext) -> Keep:
        """Draw a priority for each visual token and fit the budget."""
        visual = context.tokens.visual
        priority = torch.zeros(visual.shape, dtype=torch.float64, device=visual.device)
        for row, sample_seed in enumerate(context.sample_seeds.tolist()):
            generator = torch.Generator().manual_seed((self.config.seed * SEED_STRIDE + sample_seed) % 2**63)
            count = int(visual[row].sum())
            priority[row, visual[row]] = torch.rand(count, generator=generator, dtype=torch.float64).to(visual.device)
        counts = next_counts(self.config, context, (stage.layer,))
        return keep_by_priority(context, priority, counts, self.config.newlines, self.config.scope)
