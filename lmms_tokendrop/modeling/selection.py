"""From priorities to a decision: counts, newlines, and at least one token per image."""

import torch

from .stages import Keep, StageContext
from .token_ops import fit_counts, rank_in_groups, segment_sum


def next_counts(config, context: StageContext, layers: tuple[int, ...]) -> torch.Tensor:
    """Tokens that each group keeps at this stage, `[groups]`, from the configured budget."""
    current = segment_sum((context.groups >= 0).long(), context.groups, len(context.full))
    least = least_counts(context, config.newlines)
    budget = config.budget()
    return budget.next_count(context.full, context.processed, current, least, layers, context.num_layers)


def least_counts(context: StageContext, newlines: str) -> torch.Tensor:
    """Tokens that each group must keep, `[groups]`: one per image, and the newlines if they always stay."""
    tokens = context.tokens
    images, count = tokens.groups("image")
    visual = tokens.visual
    pairs = torch.unique(context.groups[visual] * (count + 1) + images[visual])
    least = torch.bincount(pairs // (count + 1), minlength=len(context.full))
    if newlines == "keep":
        least = least + segment_sum((visual & tokens.newline).long(), context.groups, len(context.full))
    return least


def keep_by_priority(context: StageContext, priority: torch.Tensor, counts: torch.Tensor, newlines: str, scope: str):
    """Keep text, and of each group the visual tokens of highest priority.

    Parameters
    ----------
    context : StageContext
        The stage.
    priority : torch.Tensor
        `[batch, length]`; read at visual tokens only.
    counts : torch.LongTensor
        `[groups]`, visual tokens to keep, newlines included.
    newlines : {"row", "keep", "drop"}
        A newline stays while a token of its row does, always, or never.
    scope : {"tile", "image", "request"}
        What a group is.

    Returns
    -------
    Keep
        The decision.
    """
    tokens = context.tokens
    patches = tokens.visual & ~tokens.newline & tokens.present
    lines = tokens.lines(scope) if newlines == "row" else torch.full_like(context.groups, -1)
    if newlines == "keep":
        counts = counts - segment_sum((tokens.visual & tokens.newline).long(), context.groups, len(counts))
    ranked = _with_leaders_first(context, priority, patches, lines) if scope == "request" else priority
    keep = context.valid & ~tokens.visual
    keep[patches] = fit_counts(ranked[patches], context.groups[patches], lines[patches], counts)
    return Keep.from_mask(with_newlines(context, keep, newlines, lines))


def keep_by_mask(context: StageContext, stays: torch.Tensor, priority: torch.Tensor, newlines: str, scope: str) -> Keep:
    """Keep text, and the visual tokens that `stays [batch, length]` marks; of an image without any, the best one."""
    tokens = context.tokens
    patches = tokens.visual & ~tokens.newline & tokens.present
    lines = tokens.lines(scope) if newlines == "row" else torch.full_like(context.groups, -1)
    stays = patches & stays
    images, count = tokens.groups("image")
    empty = segment_sum(stays.long(), images, count) == 0
    leaders = _leaders(context, priority, patches) & empty[images]
    keep = (context.valid & ~tokens.visual) | stays | leaders
    return Keep.from_mask(with_newlines(context, keep, newlines, lines))


def with_newlines(context: StageContext, keep: torch.Tensor, newlines: str, lines: torch.Tensor) -> torch.Tensor:
    """Add the newlines that stay beside the kept tokens."""
    ends = context.tokens.visual & context.tokens.newline
    if newlines == "drop":
        return keep & ~ends
    if newlines == "keep":
        return keep | ends
    alive = torch.zeros(max(int(lines.max()) + 1, 1), dtype=torch.bool, device=keep.device)
    alive[lines[keep & ~ends & (lines >= 0)]] = True
    return (keep & ~ends) | (ends & (lines >= 0) & alive[lines.clamp_min(0)])


def _leaders(context: StageContext, priority: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Mark the token of highest priority of each image."""
    images, _ = context.tokens.groups("image")
    order = rank_in_groups(priority[among], images[among])
    ordered = images[among][order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    marks = torch.zeros_like(ordered, dtype=torch.bool)
    marks[order[first]] = True
    leaders = torch.zeros_like(among)
    leaders[among] = marks
    return leaders


def _with_leaders_first(context: StageContext, priority: torch.Tensor, patches: torch.Tensor, lines: torch.Tensor):
    """Raise one token of each image above all others, for groups that several images share.

    It is the best token on which no newline depends, so that one token of budget per image always suffices.
    """
    free = patches & (lines < 0)
    leaders = _leaders(context, priority, free if bool(free.any()) else patches)
    return torch.where(leaders, torch.full_like(priority, float("inf")), priority)
