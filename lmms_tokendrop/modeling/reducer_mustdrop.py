"""MustDrop: judge a visual token in vision encoding, prefilling and decoding (arXiv 2411.10803)."""

import torch

from .selection import keep_by_mask, keep_by_priority, next_counts
from .stages import Keep, Stage, StageContext, TokenReducer, VisionContext
from .token_ops import merge_windows, segment_sum, similarity_order, window_cells, window_similarity, window_slots
from .window_merging import key_counts, merged_windows

PAPER_LAYERS = (2, 6, 10, 14)
PAPER_DEPTH = 32
WINDOW = 3
KEY_PRIORITY = 1e9


class MustDrop(TokenReducer):
    """Merge similar neighbours, protect key tokens, drop by dual attention, compact the cache.

    Key tokens never leave, neither below thresholds nor below a budget: where a budget is too small for them, more
    windows are merged, and key tokens are a share of what merging left. Where the release of the method differs, the
    options `merge_count`, `merge_order`, `position_mode` and `packing` reproduce it.
    """

    merges = True
    options = frozenset(
        {
            "format",
            "visual_tokens",
            "keep_ratio",
            "scope",
            "counter",
            "preset",
            "merge_threshold",
            "global_threshold",
            "individual_threshold",
            "key_ratio",
            "text_ratio",
            "layers",
            "newlines",
            "compact_first_layers",
            "decode_interval",
            "decode_drop_ratio",
            "decode_floor",
            "merge_count",
            "merge_order",
            "packing",
            "position_mode",
        }
    )

    def __init__(self, config, num_layers: int):
        super().__init__(config, num_layers)
        self.layers = drop_layers(config.layers, num_layers)

    def stages(self) -> tuple[Stage, ...]:
        """Vision block 0, the place before the decoder, the dual-attention filters, the cache."""
        compacted_from = 0 if self.config.compact_first_layers else 2
        return (
            Stage("vision", 0),
            Stage("prefill", -1),
            *(Stage("prefill", layer) for layer in self.layers),
            Stage("decode", compacted_from),
        )

    def keep(self, stage: Stage, context) -> Keep:
        """Decide for a stage; see the functions of this module."""
        if stage.where == "vision":
            return self._merge(context)
        if stage.layer == -1:
            every, attention = torch.ones_like(context.valid), context.tokens.cls_attention
            return keep_by_mask(self.config, context, every, attention)
        return self._filter(context)

    def key_tokens(self, cls_attention: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """The ceil(key_ratio * tokens) tokens of each tile that CLS attends most, counted after merging."""
        counts = key_counts(alive.sum(-1, keepdim=True), self.config.key_ratio)
        order = cls_attention.masked_fill(~alive, -1.0).argsort(dim=-1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        return alive & (rank < counts)

    def _merge(self, context: VisionContext) -> Keep:
        windows = window_cells(*context.grid, WINDOW).to(context.hidden_states.device)
        similarity = window_similarity(context.hidden_states[:, windows], context.alive[:, windows])
        merged, forced = merged_windows(self.config, self.layers, context, windows, similarity)
        if not bool(merged.any()):
            return Keep.from_mask(torch.ones_like(context.alive), forced_merges=forced)
        present = merge_windows(context.hidden_states, windows, context.alive, merged)[1]

        def merge(states: torch.Tensor) -> torch.Tensor:
            return merge_windows(states, windows, context.alive, merged)[0]

        order = None
        if self.config.merge_order == "similarity":
            order = similarity_order(window_slots(windows, context.alive), merged, similarity, present)
        return Keep.from_mask(present, merge=merge, forced_merges=forced, order=order)

    def _filter(self, context: StageContext) -> Keep:
        place = torch.arange(context.valid.shape[1], device=context.valid.device)
        last_text = torch.where(context.text_rows, place, -1).amax(-1)
        if not bool((context.tokens.visual & (place > last_text.unsqueeze(-1))).any(-1).logical_not().all()):
            raise ValueError(
                "mustdrop scores images by the text that follows them: the prompt must not end in an image"
            )
        share, best = dual_attention(context)
        config = self.config
        tokens = context.tokens
        dual = dual_score(context, share, best)
        if config.by_threshold:
            drop = torch.ones_like(tokens.visual)
            if config.global_threshold is not None:
                drop &= share < config.global_threshold
            if config.individual_threshold is not None:
                drop &= best < config.individual_threshold
            return keep_by_mask(config, context, ~drop | tokens.key, dual)
        priority = torch.where(tokens.key, KEY_PRIORITY + tokens.cls_attention.double(), dual)
        return keep_by_priority(config, context, priority, next_counts(config, context, self.layers))


def drop_layers(layers: list[int] | None, num_layers: int) -> tuple[int, ...]:
    """The decoder layers after which tokens are dropped.

    By default the paper's layers (2, 6, 10, 14 of 32), scaled: layer l of stage s becomes
    `max(s, (l + 1) * num_layers // 32 - 1)`; in decoders of fewer than five layers those that could not act fall away.

    Parameters
    ----------
    layers : list[int] or None
        Zero-based layers, ascending; None: the default.
    num_layers : int
        Number of decoder layers.

    Returns
    -------
    tuple[int, ...]
        Zero-based layers.

    Raises
    ------
    ValueError
        If a layer is the last one or lies past it, where a drop could not act.
    """
    if layers is None:
        scaled = (max(s, (layer + 1) * num_layers // PAPER_DEPTH - 1) for s, layer in enumerate(PAPER_LAYERS))
        layers = [layer for layer in scaled if layer < num_layers - 1]
    if not layers or layers[-1] >= num_layers - 1:
        raise ValueError(
            f"layers={list(layers)}: a drop after the last of {num_layers} decoder layers or past it can't act; "
            f"allowed are 0 to {num_layers - 2}"
        )
    return tuple(layers)


def dual_attention(context: StageContext) -> tuple[torch.Tensor, torch.Tensor]:
    """What the whole text, and the best single text token, give each visual token (prefilling).

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        `[batch, length]` float32, zero for text: the token's share of the attention that all text rows give to its
        image, and the largest head-mean attention that one text row gives it.
    """
    visual = context.tokens.visual
    rows = context.attention_rows(context.text_rows)[0].mean(1)
    total = rows.sum(1).masked_fill(~visual, 0.0)
    best = rows.amax(1).masked_fill(~visual, 0.0)
    images, count = context.tokens.groups("image")
    mass = segment_sum(total, images, count)
    share = torch.zeros_like(total)
    share[visual] = total[visual] / mass[images[visual]].clamp_min(torch.finfo(mass.dtype).tiny)
    return share, best


def dual_score(context: StageContext, share: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Rank by both tests at once: the larger of the two scores, each in units of its mean over the image.

    The filter keeps a token that passes either test; this is how far both thresholds may rise together until it
    passes none.

    Returns
    -------
    torch.Tensor
        `[batch, length]` float64.
    """
    visual = context.tokens.visual
    images, count = context.tokens.groups("image")
    held = segment_sum(visual.double(), images, count)
    score = torch.zeros(visual.shape, dtype=torch.float64, device=visual.device)
    for values in (share.double(), best.double()):
        mean = segment_sum(values, images, count) / held
        relative = values[visual] / mean[images[visual]].clamp_min(1e-300)
        score[visual] = torch.maximum(score[visual], relative)
    return score
