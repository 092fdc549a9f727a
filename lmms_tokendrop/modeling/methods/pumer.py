"""PuMer: prune image tokens by what the text looks at, merge text and image apart (ACL 2023, arXiv 2305.17530)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.fusion_selection import (
    BlockOptions,
    FusionCounts,
    ImageSizeOptions,
    LayeredReducer,
    image_priority,
    prune_option,
    share,
)
from ..core.options import option
from ..core.reducer import Context, Host, Keep, Stage
from ..ops.token_ops import bipartite_targets, merge_groups, ordered_indices, ranks

_VILT = {"prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}

VILT_PRESETS: dict[str, dict] = {
    "vilt-vqav2": {"layers": [2, 5, 8], **_VILT},
    "vilt-snli-ve": {"layers": [2, 4, 6, 8], **_VILT},
    "vilt-nlvr2": {"layers": [2, 5, 8], **_VILT},
}
"""PuMer's published settings for ViLT-B/32, by task. For retrieval none is stated."""


def image_merge_option(default: float):
    """The option `image_merge_ratio`, given its default."""
    text = "Share of the image tokens before a stage that merges into others, at most half of the rest."
    return option(default, text, low=0, high=1)


@dataclass
class PuMerOptions(ImageSizeOptions, BlockOptions):
    """Options of PuMer."""

    presets: ClassVar[dict[str, dict]] = VILT_PRESETS

    preset: str | None = option(None, "PuMer's setting for a task.", allowed=tuple(VILT_PRESETS))
    prune_ratio: float | None = prune_option(0.1)
    image_merge_ratio: float = image_merge_option(0.3)
    text_merge_ratio: float = option(
        0.2, "Share of the text tokens before a stage that merges into others, at most half.", low=0, high=1
    )
    score: str = option(
        "attention",
        "What the text says of an image token: `attention` averaged over heads, that of the `first_head`, or the "
        "product of the text's `keys` or `queries` with its key.",
        allowed=("attention", "first_head", "keys", "queries"),
    )
    reference: str = option(
        "paper",
        "Where they differ, follow the `paper`, each row on its own, or the `release`, padding included.",
        allowed=("paper", "release"),
    )


class PuMer(LayeredReducer):
    """Text-informed pruning, then modality-aware merging, inside some blocks before their FFN.

    With I image and T text tokens of a row before a stage, `round(prune_ratio * I)` image tokens leave,
    `round(image_merge_ratio * I)` of the rest merge into others (never more than half of them), and so do
    `round(text_merge_ratio * T)` text tokens. Merged tokens are plain means; keys, averaged over heads, are matched.
    Before they are split into the halves that are matched, image tokens are sorted by score if the stage prunes.

    `reference="release"` follows the published code where it differs from the paper or from what makes a row's answer
    its own:

    ================================ ======================================== ======================================
    what                             `paper` (default)                        `release`
    ================================ ======================================== ======================================
    I and T                          the row's own tokens                     padded lengths
    text that scores                 the row's own tokens                     padding too
    image's CLS                      stays, never merges                      may leave or merge; the best patch
                                                                              never merges instead
    padding and merged tokens        padding never takes part                 padding merges with words; a token's
                                                                              mask is the mean of its members'
                                                                              and weighs it as a key
    padding of the image             masked to the end                        unmasked by the first stage
    `prune_ratio=0`                  merging works alone                      an error: nothing would happen
    order of merged text             its own                                  first half, then second half
    ================================ ======================================== ======================================

    Either way the text's CLS stays, and the parts' counts come from the tokens before the stage.
    """

    Options = PuMerOptions
    default_prune_ratio: ClassVar[float] = 0.1
    release_waits: ClassVar[bool] = True
    """Whether the release merges nothing where no image token leaves."""

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.prune_ratio = self.default_prune_ratio if options.prune_ratio is None else options.prune_ratio
        if not (self.prune_ratio or options.image_merge_ratio or options.text_merge_ratio):
            raise ValueError(
                "pumer: prune_ratio, image_merge_ratio and text_merge_ratio are 0, so nothing would happen"
            )
        self.image_size = options.image_size
        self.counts_padding = options.reference == "release"
        if self.counts_padding and not self.prune_ratio:
            raise ValueError("pumer: the release does nothing at prune_ratio=0; allowed there: reference='paper'")

    def count(self, stage: Stage, counts: FusionCounts):
        """See the class; all counts come from the tokens before the stage."""
        kept, image_merged, text_merged = self._parts(counts.text, counts.image)
        return counts.text - text_merged, kept - image_merged

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Prune, then match keys of the image, then of the text."""
        tokens = context.tokens
        kept, image_merged, text_merged = self._parts(*tokens.counts())
        stays = tokens.valid
        scores: torch.Tensor | float = 0.0
        if self.prune_ratio:
            scores = image_priority(tokens, text_scores(context, self.options.score), protect=not self.counts_padding)
            stays = tokens.text | (tokens.image & (ranks(scores) < kept.unsqueeze(-1)))
        image_order = ordered_indices(tokens.image & stays, scores)
        text_order = ordered_indices(tokens.text, context.carry.get("text_priority", 0.0))
        target = Keep.of(stays).target
        if self.options.image_merge_ratio:
            matched = bipartite_targets(context.keys(), image_order, image_merged)
            target = torch.where(tokens.image & stays, matched, target)
        if self.options.text_merge_ratio:
            target = torch.where(tokens.text, bipartite_targets(context.keys(), text_order, text_merged), target)
        carry = self.release_carry(context, target, image_order, text_order) if self.counts_padding else {}
        return Keep.merged(target, carry=carry)

    def release_carry(self, context: Context, target, image_order, text_order) -> dict[str, torch.Tensor]:
        """What the release hands on: how much tokens weigh as keys, and the order of the text."""
        carry, tokens = dict(context.carry), context.tokens
        unmerged = Keep.of(tokens.valid).target
        if not torch.equal(target, unmerged):
            weight = merge_groups(carry["key_weight"].unsqueeze(-1), target)[..., 0]
            carry["key_weight"] = weight.masked_fill(tokens.image, 1.0)
        if not torch.equal(target[tokens.text], unmerged[tokens.text]):
            carry["text_priority"] = halves_apart(text_order, tokens.text)
        return carry

    def _parts(self, text: torch.Tensor, image: torch.Tensor):
        """Image tokens that stay after pruning, image tokens that merge away, text tokens that merge away."""
        pruned = share(image, self.prune_ratio)
        kept = (image - pruned).clamp_min(1)
        image_merged = torch.minimum(share(image, self.options.image_merge_ratio), (kept - 1) // 2)
        text_merged = torch.minimum(share(text, self.options.text_merge_ratio), (text - 1) // 2)
        if self.counts_padding and self.release_waits:
            acts = (pruned > 0).long()
            image_merged, text_merged = image_merged * acts, text_merged * acts
        return kept, image_merged, text_merged


def halves_apart(order: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Priority `[batch, length]` in which the first half of a matching (places 0, 2, ...) comes before the second.

    Parameters
    ----------
    order : torch.LongTensor
        `[batch, tokens]`, all tokens that `among` marks, the same number in each row.
    among : torch.BoolTensor
        `[batch, length]`.
    """
    halves = torch.cat([order[:, 0::2], order[:, 1::2]], dim=1)
    places = torch.arange(halves.shape[1], device=order.device, dtype=torch.float32).expand(halves.shape)
    return torch.zeros(among.shape, dtype=places.dtype, device=order.device).scatter(1, halves, -places)


def text_scores(context: Context, kind: str) -> torch.Tensor:
    """How much the text looks at each token (PuMer, text-informed pruning).

    Parameters
    ----------
    context : Context
        The stage.
    kind : {"attention", "first_head", "keys", "queries"}
        Post-softmax attention of the text's rows, averaged over heads or of head 0; or the product of the text's
        head-mean keys (queries) with the head-mean keys, without a softmax.

    Returns
    -------
    torch.Tensor
        `[batch, length]` float32, the mean over the text's tokens; padding has no vote.
    """
    text = context.text_rows
    count = text.sum(-1, keepdim=True)
    if kind in ("attention", "first_head"):
        rows = context.attention_rows(text)
        return (rows.mean(1) if kind == "attention" else rows[:, 0]).sum(1) / count
    voters = (context.keys() if kind == "keys" else context.queries()).float()
    mean = (voters * text.unsqueeze(-1)).sum(1, keepdim=True) / count.unsqueeze(-1)
    return (mean @ context.keys().float().transpose(1, 2))[:, 0]
