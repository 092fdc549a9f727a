"""SparseVLM: text tokens that fit the image rate its tokens, and what leaves is recycled (arXiv 2410.04417)."""

from typing import Any, ClassVar

import torch

from ..core.drop_layers import drop_layers
from ..core.reducer import Context, Host, Keep, Stage, TokenReducer
from ..core.selection import between, keep_by_mask, last_text
from ..ops.token_ops import ordered_indices, padded_indices, rounded_down, take_tokens
from .sparsevlm_options import SparseVLMOptions
from .token_recycling import cluster_counts, kept_of_total, recycled, recycled_counts, recycled_states

PAPER_LAYERS = (2, 6, 15)
FIRST_RELEASE_LAYERS = (*PAPER_LAYERS, 19)


class SparseVLM(TokenReducer):
    """Behind some decoder layers keep what the raters attend most; clusters of the best others come back as tokens.

    Raters are the text tokens behind the image that resemble it most, chosen before the first layer. How many tokens a
    drop leaves follows from a budget (recycled tokens are part of it), a list, or the rank of the raters' attention.
    A recycled token stands at the place of its cluster's centre, where the releases put it behind all others. Newlines
    leave before the first layer.
    """

    Options = SparseVLMOptions
    builds_on: ClassVar[dict[str, str]] = {"decoder": "features"}

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        published = PAPER_LAYERS if options.rank_scale is None else FIRST_RELEASE_LAYERS
        self.layers = drop_layers(options.layers, host.num_layers, published)
        self.adds = options.recycling != "none"
        if options.kept is not None and len(options.kept) != len(self.layers):
            raise ValueError(
                f"kept={options.kept}: {len(options.kept)} numbers; allowed: one for each of layers={list(self.layers)}"
            )

    def stages(self) -> tuple[Stage, ...]:
        """The place before the decoder, where raters are chosen, and the drops."""
        return (Stage("features"), *(Stage("decoder", layer, "after_block") for layer in self.layers))

    def count(self, stage: Stage, counts: Any) -> torch.Tensor | None:
        """What the budget or the list leaves, recycled tokens counted; by rank it depends on the data."""
        if stage.place == "features" or self.options.by_rank:
            return None
        if self.options.kept is None:
            return counts.fitted(stage, self)
        listed = self.options.kept[self.layers.index(stage.layer)]
        kept = between(torch.full_like(counts.current, listed), counts)
        return kept + self._clusters(counts.current - kept)

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Choose raters, or drop what they attend least and recycle some of it."""
        if stage.place == "features":
            last_text(context)
            every = torch.ones_like(context.valid)
            return keep_by_mask(self.options, context, every, every.double(), carry={"rater": raters(context)})
        counts, rater = context.counts, context.carry["rater"]
        rows = context.attention_rows(rater).mean(1)
        score = rows.sum(1) / rater.sum(-1, keepdim=True).clamp_min(1)
        kept, clusters = self._shares(stage, context, rows)
        stays, carry = context.best(score, kept).stays, dict(context.carry)
        if not self.adds:
            return Keep.of(stays, carry=carry)
        lost, summed = counts.groups.masked_fill(stays, -1), self.options.recycling == "sum"
        number = recycled_counts(counts.current - kept, self.options.recycled_ratio).masked_fill(clusters == 0, 0)
        target = recycled(context.hidden_states, score, lost, number, clusters, cosine=summed)
        centres = target == torch.arange(target.shape[1], device=target.device)
        places = ordered_indices(centres)
        states = recycled_states(context.hidden_states, target, summed)
        new = take_tokens(states, places.clamp_min(0).to(states.device))
        return Keep.of(stays | centres, added=(places, new), carry=carry)

    def _shares(self, stage: Stage, context: Context, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens that stay as they are, and clusters of others that come back, `[groups]` each."""
        counts, options = context.counts, self.options
        kept = total = self.count(stage, counts)
        if total is None:
            kept = self._kept_by_rank(rows, context)
            return kept, self._clusters(counts.current - kept)
        if self.adds:
            kept = kept_of_total(total, counts.current, counts.least(), options.recycled_ratio, options.cluster_ratio)
        return kept, total - kept

    def _clusters(self, dropped: torch.Tensor) -> torch.Tensor:
        options = self.options
        clusters = cluster_counts(dropped, options.recycled_ratio, options.cluster_ratio)
        return clusters if self.adds else torch.zeros_like(clusters)

    def _kept_by_rank(self, rows: torch.Tensor, context: Context) -> torch.Tensor:
        """Tokens that stay, `[groups]`, by the rank of the raters' attention `rows [batch, raters, length]`."""
        counts, options = context.counts, self.options
        current = counts.current
        rank = attention_rank(rows, counts.groups, current, context.carry["rater"].sum(-1))
        if options.rank_scale is None:
            return between(current - rounded_down(options.rank_ratio * (current - rank)), counts)
        kept = rounded_down(rank * options.rank_scale + (options.rank_bias or 0.0))
        return between(torch.minimum(kept, current - 1), counts)


def raters(context: Context) -> torch.Tensor:
    """The text tokens that rate an image: those that resemble it at least as much as the mean, `[batch, length]`.

    With embeddings V of the patches and T of the text that sees all images of its row, the resemblance of a text token
    is the mean over patches of the softmax of V T' over the text.
    """
    tokens, states = context.tokens, context.hidden_states.float()
    images_ahead = tokens.visual.flip(-1).cumsum(-1).flip(-1) > 0
    index, of_text = padded_indices(context.text_rows & ~images_ahead, "left")
    seen, of_image = padded_indices(tokens.patches, "left")
    text, image = (take_tokens(states, places.to(states.device)) for places in (index, seen))
    device = states.device
    logits = (image @ text.transpose(1, 2)).masked_fill(~of_text.to(device).unsqueeze(1), torch.finfo(states.dtype).min)
    fit = logits.softmax(-1).masked_fill(~of_image.to(device).unsqueeze(-1), 0.0).sum(1).to(index.device)
    mean = fit.sum(-1) / of_text.sum(-1).clamp_min(1)
    least = torch.minimum(mean, fit.amax(-1))  # a mean of equals may be rounded up
    return torch.zeros_like(context.text_rows).scatter(1, index, of_text & (fit >= least.unsqueeze(-1)))


def attention_rank(
    rows: torch.Tensor, groups: torch.Tensor, current: torch.Tensor, raters: torch.Tensor
) -> torch.Tensor:
    """Rank of the attention that the raters give each group of visual tokens; its singular values wait for the device.

    Parameters
    ----------
    rows : torch.Tensor
        `[batch, raters, length]` float32, zero where a row has fewer raters than the longest.
    groups : torch.LongTensor
        `[batch, length]`, group of each visual token, -1 for text.
    current : torch.LongTensor
        `[groups]`, visual tokens.
    raters : torch.LongTensor
        `[batch]`.

    Returns
    -------
    torch.LongTensor
        `[groups]`, singular values above float32's precision times the larger side, relative to the largest one.
    """
    row, place = (groups >= 0).nonzero(as_tuple=True)
    group = groups[row, place]
    of_group = torch.zeros_like(current).index_put((group,), row)
    columns = groups[of_group] == torch.arange(len(current), device=groups.device).unsqueeze(-1)
    attention = rows[of_group] * columns.unsqueeze(1)
    largest = torch.maximum(raters[of_group], current)
    return torch.linalg.matrix_rank(attention, rtol=largest * torch.finfo(rows.dtype).eps)
