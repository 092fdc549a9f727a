"""MustDrop: judge a visual token in vision encoding, prefilling and decoding (arXiv 2411.10803)."""

from dataclasses import replace
from typing import ClassVar

import torch

from ..core.drop_layers import drop_layers
from ..core.reducer import Context, Host, Keep, Stage, TokenReducer
from ..core.selection import keep_by_mask, last_text
from ..ops.selecting import fit_counts, place_in_group
from ..ops.token_ops import rounded_up, segment_sum
from ..ops.windows import window_cells, window_order, window_similarity, window_slots, window_targets
from .mustdrop_merging import merged_windows
from .mustdrop_options import MustDropOptions

PAPER_LAYERS = (2, 6, 10, 14)
WINDOW = 3
KEY_PRIORITY = 1e9


class MustDrop(TokenReducer):
    """Merge similar neighbours, protect key tokens, drop by dual attention, compact the cache.

    Key tokens never leave, neither below thresholds nor below a budget: where a budget is too small for them, more
    windows are merged, and key tokens are a share of what merging left. Where the release of the method differs, the
    options `merge_count`, `merge_order`, `position_mode` and `packing` reproduce it.
    """

    Options = MustDropOptions
    needs = frozenset({"cls_attention"})
    builds_on: ClassVar[dict[str, str]] = {"decoder": "features"}

    def __init__(self, options, host: Host):
        super().__init__(options if "features" in host.places else replace(options, key_ratio=0.0), host)
        self.layers = drop_layers(options.layers, host.num_layers, PAPER_LAYERS)
        self.protected_share = self.options.key_ratio if options.protects_key_tokens else 0.0

    def stages(self) -> tuple[Stage, ...]:
        """Vision block 0, the place before the decoder, the dual-attention filters, the cache."""
        options, layers = self.options, range(self.host.num_layers)
        compacted = layers[0 if options.compact_first_layers else 2 :]
        evicted = layers if options.decode_interval is not None else ()
        return (
            Stage("vision", 0, "after_block"),
            Stage("features"),
            *(Stage("decoder", layer) for layer in self.layers),
            *(Stage("decode", layer) for layer in compacted),
            *(Stage("decode", layer, "after_token", options.decode_interval) for layer in evicted),
        )

    def count(self, stage: Stage, counts):
        """What the budget leaves after a filter; elsewhere, and with thresholds, it depends on the data."""
        filters = stage.place == "decoder" and not self.options.by_threshold
        return counts.fitted(stage, self) if filters else None

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Decide for a stage; see the functions of this module."""
        if stage.place == "vision":
            return self._merge(context)
        if stage.place == "features":
            return self._protect(context)
        if stage.place == "decoder":
            return self._filter(stage, context)
        if stage.point == "after_prefill":
            return context.provided("survivors")
        return least_attended(context, self.options.decode_drop_ratio, self.options.decode_floor)

    def _merge(self, context: Context) -> Keep:
        """Merge windows of patches, whose CLS is first."""
        tiles, states = context.provided("tiles"), context.hidden_states[:, 1:]
        windows = window_cells(tiles.grid[0], tiles.grid[1], WINDOW).to(states.device)
        similarity = window_similarity(states[:, windows], tiles.alive[:, windows])
        merged, forced = merged_windows(self.options, self.drop_layers, tiles, windows, similarity)
        carry = {"forced_merges": forced[tiles.image].unsqueeze(-1).expand(context.valid.shape)}
        target = window_targets(windows, tiles.alive, merged)
        if self.options.merge_order == "similarity":
            order = window_order(window_slots(windows, tiles.alive), merged, similarity, target)
            carry["order"] = torch.nn.functional.pad(order, (1, 0))
        target = torch.nn.functional.pad(torch.where(target >= 0, target + 1, -1), (1, 0))
        return Keep.merged(target, by_place=True, carry=carry)

    def _protect(self, context: Context) -> Keep:
        """Drop what merged, and mark the tokens of each tile that CLS attends most, counted after merging."""
        tokens, attention = context.tokens, context.cls_attention()
        key = key_tokens(attention, tokens.patches, tokens, self.options.key_ratio)
        carry = {"key": key, **({"protected": key} if self.options.protects_key_tokens else {})}
        return keep_by_mask(self.options, context, torch.ones_like(context.valid), attention, carry=carry)

    def _filter(self, stage: Stage, context: Context) -> Keep:
        """Keep key tokens, and what the text looks at."""
        last_text(context)
        share, best, dual = dual_attention(context)
        options, key = self.options, context.carry["key"]
        if options.by_threshold:
            drop = torch.ones_like(key)
            for values, threshold in ((share, options.global_threshold), (best, options.individual_threshold)):
                if threshold is not None:
                    drop &= values < threshold
            return keep_by_mask(options, context, ~drop | key, dual, carry=dict(context.carry))
        priority = torch.where(key, KEY_PRIORITY + context.cls_attention().double(), dual)
        return context.best(priority, self.count(stage, context.counts), carry=dict(context.carry))


def key_tokens(attention: torch.Tensor, among: torch.Tensor, tokens, key_ratio: float) -> torch.Tensor:
    """The ceil(key_ratio * tokens) tokens of each tile that CLS attends most, of those that `among` marks.

    Parameters
    ----------
    attention : torch.Tensor
        `[batch, length]`.
    among : torch.BoolTensor
        `[batch, length]`.
    tokens : VisualTokens
        `[batch, length]`.
    key_ratio : float
        Share of the marked tokens of a tile.

    Returns
    -------
    torch.BoolTensor
        `[batch, length]`.
    """
    groups, count = tokens.groups("tile")
    tile = groups.masked_fill(~among, -1)
    keys = rounded_up(segment_sum(among.double(), tile, count) * key_ratio)
    return among & (place_in_group(attention, tile, count) < keys[tile])


def least_attended(context: Context, drop_ratio: float, floor: int) -> Keep:
    """Drop the visual entries of a cache layer that generated tokens attended least (output-aware policy).

    Parameters
    ----------
    context : Context
        The layer.
    drop_ratio : float
        Share of each image's entries that leaves, rounded up.
    floor : int
        Entries per image that stay in any case.
    """
    visual = context.tokens.visual
    groups, count = context.tokens.groups("image")
    held = segment_sum(visual.long(), groups, count)
    counts = torch.maximum(held - rounded_up(held.double() * drop_ratio), held.clamp_max(floor))
    stays = fit_counts(context.provided("attention_so_far"), groups, None, counts)
    return Keep.of((context.valid & ~visual) | stays)


def dual_attention(context: Context) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the whole text, and the best single text token, give each visual token (prefilling), and both as one score.

    The filter keeps a token that passes either test; the score, the larger of the two, each in units of its mean over
    the image, is how far both thresholds may rise together until it passes none.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor, torch.Tensor]
        `[batch, length]` each, zero for text: float32, the token's share of the attention that all text rows give to
        its image, and the largest head-mean attention that one text row gives it; float64, the score.
    """
    visual = context.tokens.visual
    rows = context.attention_rows(context.text_rows).mean(1)
    total = rows.sum(1).masked_fill(~visual, 0.0)
    best = rows.amax(1).masked_fill(~visual, 0.0)
    images, count = context.tokens.groups("image")
    mass = segment_sum(total, images, count)
    share = total / mass[images].clamp_min(torch.finfo(mass.dtype).tiny)
    held = segment_sum(visual.double(), images, count)
    score = torch.zeros(visual.shape, dtype=torch.float64, device=visual.device)
    for values in (share.double(), best.double()):
        mean = segment_sum(values, images, count) / held
        score = torch.maximum(score, values / mean[images].clamp_min(1e-300))
    return share, best, score.masked_fill(~visual, 0.0)
