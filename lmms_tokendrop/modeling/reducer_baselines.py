"""Baselines: no reduction, and random or evenly spaced dropping before the decoder."""

import torch

from .selection import keep_by_priority, next_counts
from .stages import Keep, Stage, StageContext, TokenReducer
from .token_ops import segment_sum

SEED_STRIDE = 1_000_003


class NoReduction(TokenReducer):
    """The unreduced model, through the same code."""


class RandomDrop(TokenReducer):
    """Drop visual tokens at random before the first decoder layer, so that every layer receives the same number.

    Each sequence draws with `seed` and its own sample seed, so its choice does not depend on its batch.
    """

    options = frozenset(
        {"format", "visual_tokens", "keep_ratio", "scope", "counter", "newlines", "position_mode", "seed"}
    )

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
        return keep_by_priority(self.config, context, priority, counts)


class UniformDrop(TokenReducer):
    """Keep evenly spaced visual tokens before the first decoder layer; newlines leave.

    Of the n tokens of a group, in the order in which they enter the decoder, c stay: those at which the running share
    `place * c / n` passes a half. An image that would get none in a request's budget keeps its first token.
    """

    options = frozenset({"visual_tokens", "keep_ratio", "scope", "counter", "position_mode"})

    def stages(self) -> tuple[Stage, ...]:
        """One stage, before the first layer."""
        return (Stage("prefill", -1),)

    def keep(self, stage: Stage, context: StageContext) -> Keep:
        """Mark the places of each group and fit the budget."""
        counts = next_counts(self.config, context, (stage.layer,))
        patches = context.tokens.visual & ~context.tokens.newline
        group = context.groups[patches]
        total = segment_sum(torch.ones_like(group), group, len(counts))
        order = group.argsort(stable=True)
        place = torch.empty_like(group)
        place[order] = torch.arange(len(group), device=group.device) - (total.cumsum(0) - total)[group[order]]
        priority = torch.zeros(patches.shape, dtype=torch.float64, device=patches.device)
        priority[patches] = ((place * counts[group] + total[group] // 2) % total[group] < counts[group]).double()
        return keep_by_priority(self.config, context, priority, counts)
