"""PuMer: prune image tokens by what the text looks at, merge text and image apart (ACL 2023, arXiv 2305.17530)."""

import torch

from .fusion_selection import fusion_layers, image_priority, pruned_image, share, staying_target, text_scores
from .fusion_stages import FusionContext, FusionReducer
from .stages import Keep, Stage
from .token_matching import bipartite_targets, ordered_indices

PAPER_LAYERS = (2, 5, 8)
PAPER_PRUNE_RATIO = 0.1


class PuMer(FusionReducer):
    """Text-informed pruning, then modality-aware merging, inside some blocks before their FFN.

    With I image and T text tokens of a row before a stage, padding excluded, `round(prune_ratio * I)` image tokens
    leave, `round(image_merge_ratio * I)` of the rest merge into others (never more than half of them), and so do
    `round(text_merge_ratio * T)` text tokens. Merged tokens are plain means; keys, averaged over heads, are matched.
    Each of the three parts works without the others.

    Before they are split into the halves that are matched, image tokens are sorted by score if the stage prunes, else
    they keep their order. The CLS tokens of text and image neither leave nor merge. (The release protects the text's
    CLS and the best patch instead, counts padding as tokens and lets it vote and merge.)
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
        self.image_size = config.smaller_size(image_size)

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
            scores = text_scores(context, self.config.score)
            stays = pruned_image(tokens, scores, kept)
            scores = image_priority(tokens, scores)
        target = staying_target(stays)
        if bool(image_merged.any()):
            order = ordered_indices(tokens.image & stays, scores)
            target = torch.where(tokens.image & stays, bipartite_targets(context.keys(), order, image_merged), target)
        if bool(text_merged.any()):
            order = ordered_indices(tokens.text)
            target = torch.where(tokens.text, bipartite_targets(context.keys(), order, text_merged), target)
        return Keep.from_target(target)

    def _parts(self, text: torch.Tensor, image: torch.Tensor):
        """Image tokens that stay after pruning, image tokens that merge away, text tokens that merge away."""
        kept = (image - share(image, self.prune_ratio)).clamp_min(1)
        image_merged = torch.minimum(share(image, self.config.image_merge_ratio), (kept - 1) // 2)
        text_merged = torch.minimum(share(text, self.config.text_merge_ratio), (text - 1) // 2)
        return kept, image_merged, text_merged
