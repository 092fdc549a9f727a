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
        A newline leaves with the last token of its row, never, or at once.
    scope : {"tile", "image", "request"}
        What a group is.

    Returns
    -------
    Keep
        The decision.
    """
    tokens = context.tokens
    ranked, lines = _ranked(context, newlines, scope)
    if newlines == "keep":
        counts = counts - segment_sum((tokens.visual & tokens.newline).long(), context.groups, len(counts))
    if scope == "request":
        priority = _with_leaders_first(context, priority, ranked, lines)
    keep = context.valid & ~tokens.visual
    keep[ranked] = fit_counts(priority[ranked], context.groups[ranked], lines[ranked], counts)
    return Keep.from_mask(_with_newlines(context, keep, newlines, lines))


def keep_by_mask(context: StageContext, stays: torch.Tensor, priority: torch.Tensor, newlines: str, scope: str) -> Keep:
    """Keep text, and the visual tokens that `stays [batch, length]` marks; of an image without any, the best one."""
    tokens = context.tokens
    ranked, lines = _ranked(context, newlines, scope)
    stays = ranked & stays
    images, count = tokens.groups("image")
    empty = segment_sum(stays.long(), images, count) == 0
    leaders = _leaders(context, priority, ranked) & empty[images]
    keep = (context.valid & ~tokens.visual) | stays | leaders
    return Keep.from_mask(_with_newlines(context, keep, newlines, lines))


def _ranked(context: StageContext, newlines: str, scope: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that are judged, and the row whose newline stays while one of them does.

    A newline without a row (unpadding can leave an extreme sliver no column) is judged like any other token.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        `[batch, length]` each; rows are numbered over the batch, -1 where no newline depends on the token.
    """
    tokens = context.tokens
    patches = tokens.visual & ~tokens.newline
    if newlines != "row":
        return patches & tokens.present, torch.full_like(context.groups, -1)
    lines = tokens.lines(scope)
    alone = tokens.visual & tokens.newline & ~_has_token(lines, patches)
    return (patches & tokens.present) | alone, lines.masked_fill(alone, -1)


def _with_newlines(context: StageContext, keep: torch.Tensor, newlines: str, lines: torch.Tensor) -> torch.Tensor:
    """Add the newlines that stay beside the kept tokens."""
    ends = context.tokens.visual & context.tokens.newline
    return keep | (ends if newlines == "keep" else ends & _has_token(lines, keep))


def _has_token(lines: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """`[batch, length]`, whether the line of an entry has a marked token; False for entries of no line."""
    occupied = torch.zeros(int(lines.max()) + 2, dtype=torch.bool, device=lines.device)
    occupied[lines[among & (lines >= 0)]] = True
    return occupied[lines]


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
