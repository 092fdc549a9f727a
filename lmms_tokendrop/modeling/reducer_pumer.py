"""PuMer: prune image tokens by what the text looks at, merge text and image apart (ACL 2023, arXiv 2305.17530)."""

import torch

from .fusion_selection import fusion_layers, image_priority, share, staying_target, text_scores
from .fusion_stages import FusionContext, FusionReducer
from .stages import Keep, Stage
from .token_matching import bipartite_targets, merge_groups, ordered_indices, ranks

PAPER_LAYERS = (2, 5, 8)
PAPER_PRUNE_RATIO = 0.1


class PuMer(FusionReducer):
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

    merges = True
    options = frozenset(
        {
            "preset",
            "layers",
            "prune_ratio",
            "image_merge_ratio",
            "text_merge_ratio",
            "score",
            "reference",
            "image_size",
        }
    )

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.layers = fusion_layers(config.layers, num_layers, PAPER_LAYERS)
        self.prune_ratio = PAPER_PRUNE_RATIO if config.prune_ratio is None else config.prune_ratio
        if not (self.prune_ratio or config.image_merge_ratio or config.text_merge_ratio):
            raise ValueError(
                "pumer: prune_ratio, image_merge_ratio and text_merge_ratio are 0, so nothing would happen"
            )
        self.image_size = config.image_size
        self.counts_padding = config.reference == "release"
        if self.counts_padding and not self.prune_ratio:
            raise ValueError("pumer: the release does nothing at prune_ratio=0; allowed there: reference='paper'")

    def stages(self) -> tuple[Stage, ...]:
        """One stage in each of the layers."""
        return tuple(Stage("fusion", layer, "before_ffn") for layer in self.layers)

    def counts(self, stage: Stage, text, image, first):
        """See the class; all counts come from the tokens before the stage."""
        kept, image_merged, text_merged = self._parts(text, image)
        return text - text_merged, kept - image_merged

    def keep(self, stage: Stage, context: FusionContext) -> Keep:
        """Prune, then match keys of the image, then of the text."""
        tokens = context.tokens
        kept, image_merged, text_merged = self._parts(*tokens.counts())
        stays, scores = tokens.valid, None
        if self.prune_ratio:
            scores = image_priority(tokens, text_scores(context, self.config.score), protect=not self.counts_padding)
            stays = tokens.text | (tokens.image & (ranks(scores) < kept.unsqueeze(-1)))
        target = staying_target(stays)
        image_order = ordered_indices(tokens.image & stays, scores)
        if bool(image_merged.any()):
            matched = bipartite_targets(context.keys(), image_order, image_merged)
            target = torch.where(tokens.image & stays, matched, target)
        text_order = ordered_indices(tokens.text, self._text_rank(context))
        if bool(text_merged.any()):
            target = torch.where(tokens.text, bipartite_targets(context.keys(), text_order, text_merged), target)
        if not self.counts_padding:
            return Keep.from_target(target)
        return Keep.from_target(target, carry=self.release_carry(context, target, image_order, text_order))

    def release_carry(
        self, context: FusionContext, target: torch.Tensor, image_order: torch.Tensor, text_order: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the release hands on: how much tokens weigh as keys, and the order of the text."""
        carry, tokens = dict(context.carry), context.tokens
        if not torch.equal(target, staying_target(tokens.valid)):
            weight = merge_groups(carry["key_weight"].unsqueeze(-1), target)[..., 0]
            carry["key_weight"] = weight.masked_fill(tokens.image, 1.0)
        if not torch.equal(target[tokens.text], staying_target(tokens.valid)[tokens.text]):
            carry["text_rank"] = halves_apart(text_order, tokens.text)
        return carry

    def release_acts(self, pruned: torch.Tensor) -> torch.Tensor:
        """1 where the release does anything, else 0, given the numbers of image tokens that leave `[batch]`."""
        return (pruned > 0).long()

    def _text_rank(self, context: FusionContext) -> torch.Tensor | None:
        """Priority of the text tokens in the order of the release; None for their own order."""
        rank = context.carry.get("text_rank")
        return None if rank is None else -rank

    def _parts(self, text: torch.Tensor, image: torch.Tensor):
        """Image tokens that stay after pruning, image tokens that merge away, text tokens that merge away."""
        pruned = share(image, self.prune_ratio)
        kept = (image - pruned).clamp_min(1)
        image_merged = torch.minimum(share(image, self.config.image_merge_ratio), (kept - 1) // 2)
        text_merged = torch.minimum(share(text, self.config.text_merge_ratio), (text - 1) // 2)
        if self.counts_padding:
            acts = self.release_acts(pruned)
            return kept, image_merged * acts, text_merged * acts
        return kept, image_merged, text_merged


def halves_apart(order: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Rank `[batch, length]` in which the first half of a matching (places 0, 2, ...) comes before the second.

    Parameters
    ----------
    order : torch.LongTensor
        `[batch, tokens]`, all tokens that `among` marks, the same number in each row.
    among : torch.BoolTensor
        `[batch, length]`.
    """
    halves = torch.cat([order[:, 0::2], order[:, 1::2]], dim=1)
    places = torch.arange(halves.shape[1], device=order.device, dtype=torch.float32).expand(halves.shape)
    return torch.zeros(among.shape, dtype=places.dtype, device=order.device).scatter(1, halves, places)
