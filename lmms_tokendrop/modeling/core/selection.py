"""From priorities to a decision in decoders: counts, newlines, and at least one token per image."""

from dataclasses import dataclass, field
from typing import Any

import torch

from ..ops.selecting import fit_counts, place_in_group
from ..ops.token_ops import segment_sum
from .decoder_options import setting
from .reducer import Context, Keep, TokenReducer
from .visual_tokens import VisualTokens


@dataclass(frozen=True)
class DecoderCounts:
    """What the counts of a stage can be computed from.

    Attributes
    ----------
    options : Options
        Of the method.
    tokens : VisualTokens
        `[batch, length]`, the tokens before the stage.
    groups : torch.LongTensor
        `[batch, length]`, group of each visual token in the scope of the budget; -1 for text.
    full, full_newlines : torch.Tensor
        `[groups]`, tokens that the unreduced model processes, and the newlines among them.
    processed : list[torch.Tensor]
        `[groups]` per decoder layer so far: what the layer received.
    protected : torch.BoolTensor
        `[batch, length]`, tokens that stay to the end.
    known : dict[Stage, torch.Tensor]
        What :meth:`fitted` gave.
    """

    options: Any
    tokens: VisualTokens
    groups: torch.Tensor
    full: torch.Tensor
    full_newlines: torch.Tensor
    processed: list[torch.Tensor]
    protected: torch.Tensor
    known: dict[Any, torch.Tensor] = field(default_factory=dict)

    @property
    def current(self) -> torch.Tensor:
        """`[groups]`, tokens before the stage."""
        return segment_sum((self.groups >= 0).long(), self.groups, len(self.full))

    @property
    def available(self) -> torch.Tensor:
        """`[groups]`, tokens of the unreduced model that can stay: without newlines where all of these leave."""
        return self.full if self.options.counts_newlines else self.full - self.full_newlines

    def fitted(self, stage: Any, reducer: TokenReducer) -> torch.Tensor:
        """Tokens that each group keeps at a stage, `[groups]`, from the budget, with drops after all of `drop_layers`.

        Raises
        ------
        ValueError
            If the budget can't be reached.
        """
        if stage not in self.known:
            count = self.options.budget().next_count(
                self.available, self.processed, self.current, self.least(), reducer.drop_layers, reducer.host.num_layers
            )
            # the tokens before the first drop may have newlines among them
            self.known[stage] = torch.minimum(count, self.available)
        return self.known[stage]

    def least(self) -> torch.Tensor:
        """Tokens that each group must keep, `[groups]`.

        These are its protected tokens, at least one per image, and the newlines that stay in any case: all with
        `newlines="keep"`, those of the protected tokens' rows with "row".
        """
        tokens, newlines, visual = self.tokens, setting(self.options, "newlines"), self.tokens.visual
        by_tile = setting(self.options, "scope") == "tile"
        part, count = (self.groups, len(self.full)) if by_tile else tokens.groups("image")
        held, staying = (segment_sum(marked.long(), part, count) for marked in (visual, visual & self.protected))
        group = part.new_zeros(count + 1).scatter(0, torch.where(visual, part, count).flatten(), self.groups.flatten())
        least = segment_sum(torch.where(held > 0, staying.clamp_min(1), 0), group[:count], len(self.full))
        if newlines == "drop":
            return least
        ends = visual & tokens.newline
        if newlines == "row":
            ends = ends & _has_token(tokens.lines(setting(self.options, "scope")), self.protected)
        return least + segment_sum(ends.long(), self.groups, len(self.full))


def between(kept: torch.Tensor, counts: Any) -> torch.Tensor:
    """A number of tokens, `[groups]`, not below what must stay nor above what is there."""
    return torch.minimum(torch.maximum(kept, counts.least()), counts.current)


def keep_by_priority(options, context: Context, priority: torch.Tensor, counts: torch.Tensor, **details) -> Keep:
    """Keep text, and of each group the visual tokens of highest priority.

    Parameters
    ----------
    options : Options
        Of the method; `newlines` says whether a newline leaves with the last token of its row, never, or at once.
    context : Context
        The stage.
    priority : torch.Tensor
        `[batch, length]`; read at visual tokens only, and not at protected ones, which stay.
    counts : torch.LongTensor
        `[groups]`, visual tokens to keep, newlines included; not below :meth:`DecoderCounts.least`.
    **details
        Of the :class:`Keep`.

    Returns
    -------
    Keep
        The decision.
    """
    tokens, groups, keys = context.tokens, context.counts.groups, context.counts.protected
    priority = priority.masked_fill(keys, float("inf"))
    ranked, lines = _ranked(options, context)
    if setting(options, "newlines") == "keep":
        counts = counts - segment_sum((tokens.visual & tokens.newline).long(), groups, len(counts))
    if setting(options, "scope") == "request":
        # the best tokens on which no newline depends, so that one token of budget per image always suffices
        free = ranked if lines is None else ranked & (lines < 0)
        leaders = _leaders(context, priority, torch.where(free.any(), free, ranked), keys)
        priority = priority.masked_fill(leaders, float("inf"))
        keys = keys | leaders
    stays = fit_counts(priority, groups.masked_fill(~ranked, -1), lines, counts, keys)
    return _with_text(options, context, stays, lines, **details)


def last_text(context: Context) -> torch.Tensor:
    """Mark the last text token of each row, `[batch, length]`, for methods that score images by the text behind them.

    Raises
    ------
    ValueError
        If no text follows an image.
    """
    place = torch.arange(context.valid.shape[1], device=context.valid.device)
    last = torch.where(context.text_rows, place, -1).amax(-1, keepdim=True)
    if bool((context.tokens.visual & (place > last)).any()):
        method = context.counts.options.method
        raise ValueError(f"{method} scores images by the text that follows them: the prompt must not end in an image")
    return place == last


def text_attention(context: Context, query: str) -> torch.Tensor:
    """Head-mean attention `[batch, length]` float32 of the `last` text token, or of the mean `text` token.

    Raises
    ------
    ValueError
        If no text follows an image.
    """
    last = last_text(context)
    rows = context.text_rows if query == "text" else last
    return context.attention_rows(rows).mean(1).sum(1) / rows.sum(-1, keepdim=True).clamp_min(1)


def keep_by_mask(options, context: Context, stays: torch.Tensor, priority: torch.Tensor, **details) -> Keep:
    """Keep text, protected tokens, what `stays [batch, length]` marks, and the best token of an image without any."""
    ranked, lines = _ranked(options, context)
    stays = ranked & (stays | context.counts.protected)
    return _with_text(options, context, stays | _leaders(context, priority, ranked, stays), lines, **details)


def _ranked(options, context: Context) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The tokens that are judged, and the row whose newline stays while one of them does.

    A newline without a row (unpadding can leave an extreme sliver no column) is judged like any other token.

    Returns
    -------
    tuple[torch.BoolTensor, torch.LongTensor or None]
        `[batch, length]` each; rows are numbered over the batch, -1 where no newline depends on the token. None: on
        none does any.
    """
    tokens = context.tokens
    if setting(options, "newlines") != "row":
        return tokens.patches, None
    lines, ends = tokens.lines(setting(options, "scope")), tokens.visual & tokens.newline
    alone = ends & ~_has_token(lines, tokens.visual & ~ends)
    return tokens.patches | alone, lines.masked_fill(alone, -1)


def _with_text(options, context: Context, stays: torch.Tensor, lines: torch.Tensor | None, **details) -> Keep:
    """Keep text, the visual tokens that are marked, and the newlines that stay beside them."""
    ends = context.tokens.visual & context.tokens.newline
    if setting(options, "newlines") == "keep":
        stays = stays | ends
    elif lines is not None:
        stays = stays | (ends & _has_token(lines, stays))
    return Keep.of((context.valid & ~context.tokens.visual) | stays, **details)


def _has_token(lines: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """`[batch, length]`, whether the line of an entry has a marked token; False for entries of no line."""
    return (segment_sum(among.long(), lines, lines.numel())[lines] > 0) & (lines >= 0)


def _leaders(context: Context, priority: torch.Tensor, among: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Mark the token of highest priority `among` those of each image that has none of the `held` ones."""
    images, count = context.tokens.groups("image")
    without = segment_sum(held.long(), images, count) == 0
    return among & (place_in_group(priority, images.masked_fill(~among, -1), count) == 0) & without[images]
