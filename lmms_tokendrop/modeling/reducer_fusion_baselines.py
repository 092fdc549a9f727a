"""Baselines in encoders of text and image: random pruning, attention of a CLS token, a smaller input."""

import torch

from .fusion_selection import fusion_layers, pruned_image, share, staying_target
from .fusion_stages import FusionContext, FusionReducer
from .reducer_baselines import SEED_STRIDE
from .stages import Keep, Stage

DEFAULT_LAYERS = (2, 5, 8)
DEFAULT_PRUNE_RATIO = 0.4


class ScoredPruning(FusionReducer):
    """Drop `round(prune_ratio * I)` of I image tokens in some blocks, before their FFN; the image's CLS stays.

    The default drops as many image tokens as PuMer's published settings drop and merge.
    """

    options = frozenset({"layers", "prune_ratio"})

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.layers = fusion_layers(config.layers, num_layers, DEFAULT_LAYERS)
        self.prune_ratio = DEFAULT_PRUNE_RATIO if config.prune_ratio is None else config.prune_ratio
        if not self.prune_ratio:
            raise ValueError(f"{config.method}: prune_ratio is 0, so nothing would happen")

    def stages(self) -> tuple[Stage, ...]:
        """One stage in each of the layers."""
        return tuple(Stage("fusion", layer, "before_ffn") for layer in self.layers)

    def counts(self, stage: Stage, text, image, first):
        """At least one image token stays."""
        return text, (image - share(image, self.prune_ratio)).clamp_min(1)

    def keep(self, stage: Stage, context: FusionContext) -> Keep:
        """Keep the image tokens of highest score."""
        tokens = context.tokens
        kept = self.counts(stage, *tokens.counts(), context.first_counts)[1]
        return Keep.from_target(staying_target(pruned_image(tokens, self.scores(context), kept)))

    def scores(self, context: FusionContext) -> torch.Tensor:
        """Scores `[batch, length]`, read at image tokens."""
        raise NotImplementedError


class RandomPruning(ScoredPruning):
    """Drop image tokens at random.

    Each row draws one order of its image with `seed` and its own sample seed, and every stage drops the last of what is
    left: its choice does not depend on its batch.
    """

    options = ScoredPruning.options | {"seed"}

    def scores(self, context: FusionContext) -> torch.Tensor:
        """The drawn priority of each patch, by its place in the image."""
        tokens = context.tokens
        scores = torch.zeros(tokens.place.shape, dtype=torch.float64, device=tokens.place.device)
        images = context.first_counts[1].tolist()
        for row, sample_seed in enumerate(context.sample_seeds.tolist()):
            generator = torch.Generator().manual_seed((self.config.seed * SEED_STRIDE + sample_seed) % 2**63)
            drawn = torch.rand(images[row], generator=generator, dtype=torch.float64).to(scores.device)
            places = tokens.place[row, tokens.image[row]]
            scores[row, tokens.image[row]] = drawn[places - places[0]]
        return scores


class ClsAttentionPruning(ScoredPruning):
    """Keep the image tokens that a CLS token attends most, the text's (which heads read) or the image's."""

    options = ScoredPruning.options | {"cls_token"}

    def scores(self, context: FusionContext) -> torch.Tensor:
        """The attention row of the CLS token."""
        rows = context.tokens.image_cls
        if self.config.cls_token == "text":
            rows = torch.zeros_like(rows)
            rows[:, 0] = True
        return context.attention_rows(rows).mean(1)[:, 0]


class SmallerResolution(FusionReducer):
    """Scale images down before the patch embedding; position embeddings are interpolated to the smaller grid."""

    options = frozenset({"image_size"})

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.image_size = config.image_size or image_size * 5 // 6
