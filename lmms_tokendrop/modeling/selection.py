"""From priorities to a decision: counts, newlines, and at least one token per image."""

import torch

from .stages import Keep, StageContext
from .token_ops import fit_counts, rank_in_groups, segment_sum


def next_counts(config, context: StageContext, layers: tuple[int, ...]) -> torch.Tensor:
    """Tokens that each group keeps at this stage, `[groups]`, from the configured budget."""
    current = segment_sum((context.groups >= 0).long(), context.groups, len(context.full))
    available = context.full if config.counts_newlines else context.full - context.full_newlines
    least = least_counts(config, context)
    budget = config.budget()
    return budget.next_count(available, context.processed, current, least, layers, context.num_layers)


def least_counts(config, context: StageContext) -> torch.Tensor:
    """Tokens that each group must keep, `[groups]`.

    These are its key tokens, at least one per image, and the newlines that stay in any case: all with
    `newlines="keep"`, those of the key tokens' rows with "row".
    """
    tokens = context.tokens
    images, count = tokens.groups("image")
    visual, keys = tokens.visual, protected_tokens(config, context)
    pairs, pair = torch.unique(context.groups[visual] * (count + 1) + images[visual], return_inverse=True)
    in_pair = segment_sum(keys[visual].long(), pair, len(pairs)).clamp_min(1)
    least = segment_sum(in_pair, pairs // (count + 1), len(context.full))
    if config.newlines != "drop":
        ends = visual & tokens.newline
        if config.newlines == "row":
            ends = ends & _has_token(tokens.lines(config.scope), keys)
        least = least + segment_sum(ends.long(), context.groups, len(context.full))
    return least


def protected_tokens(config, context: StageContext) -> torch.Tensor:
    """`[batch, length]`, True for key tokens, where they never leave."""
    return context.tokens.key if config.protects_key_tokens else torch.zeros_like(context.tokens.key)


def keep_by_priority(config, context: StageContext, priority: torch.Tensor, counts: torch.Tensor) -> Keep:
    """Keep text, and of each group the visual tokens of highest priority.

    Parameters
    ----------
    config : TokenReductionConfig
        The options; `newlines` says whether a newline leaves with the last token of its row, never, or at once.
    context : StageContext
        The stage.
    priority : torch.Tensor
        `[batch, length]`; read at visual tokens only, highest for key tokens.
    counts : torch.LongTensor
        `[groups]`, visual tokens to keep, newlines included; not below :func:`least_counts`.

    Returns
    -------
    Keep
        The decision.
    """
    tokens = context.tokens
    ranked, lines = _ranked(config, context)
    keys = protected_tokens(config, context)
    if config.newlines == "keep":
        counts = counts - segment_sum((tokens.visual & tokens.newline).long(), context.groups, len(counts))
    if config.scope == "request":
        leaders = _leaders_without_keys(context, priority, ranked, lines, keys)
        priority = priority.masked_fill(leaders, float("inf"))
        keys = keys | leaders
    keep = context.valid & ~tokens.visual
    keep[ranked] = fit_counts(priority[ranked], context.groups[ranked], lines[ranked], counts, keys[ranked])
    return Keep.from_mask(_with_newlines(config, context, keep, lines))


def keep_by_mask(config, context: StageContext, stays: torch.Tensor, priority: torch.Tensor) -> Keep:
    """Keep text, and the visual tokens that `stays [batch, length]` marks; of an image without any, the best one."""
    tokens = context.tokens
    ranked, lines = _ranked(config, context)
    stays = ranked & stays
    images, count = tokens.groups("image")
    empty = segment_sum(stays.long(), images, count) == 0
    leaders = _leaders(context, priority, ranked) & empty[images]
    keep = (context.valid & ~tokens.visual) | stays | leaders
    return Keep.from_mask(_with_newlines(config, context, keep, lines))


def _ranked(config, context: StageContext) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that are judged, and the row whose newline stays while one of them does.

    A newline without a row (unpadding can leave an extreme sliver no column) is judged like any other token.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        `[batch, length]` each; rows are numbered over the batch, -1 where no newline depends on the token.
    """
    tokens = context.tokens
    patches = tokens.visual & ~tokens.newline
    if config.newlines != "row":
        return patches & tokens.present, torch.full_like(context.groups, -1)
    lines = tokens.lines(config.scope)
    alone = tokens.visual & tokens.newline & ~_has_token(lines, patches)
    return (patches & tokens.present) | alone, lines.masked_fill(alone, -1)


def _with_newlines(config, context: StageContext, keep: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
    """Add the newlines that stay beside the kept tokens."""
    ends = context.tokens.visual & context.tokens.newline
    return keep | (ends if config.newlines == "keep" else ends & _has_token(lines, keep))


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


def _leaders_without_keys(context: StageContext, priority: torch.Tensor, patches, lines, keys: torch.Tensor):
    """Mark one token of each image without key tokens, which stays where several images share a group.

    It is the best token on which no newline depends, so that one token of budget per image always suffices.
    """
    images, count = context.tokens.groups("image")
    without = segment_sum(keys.long(), images, count) == 0
    free = patches & (lines < 0)
    return _leaders(context, priority, free if bool(free.any()) else patches) & without[images]
