"""Token merging, ToMe: merge the most similar tokens in every block (ICLR 2023, arXiv 2210.09461)."""

import torch

from .fusion_selection import staying_target
from .fusion_stages import FusionContext, FusionReducer
from .stages import Keep, Stage
from .token_matching import bipartite_targets, ordered_indices


class ToMe(FusionReducer):
    """Merge `r` tokens in every block, before its FFN.

    Keys, averaged over heads, are matched; merged tokens are means weighted by the number of tokens that each stands
    for, and attention adds the logarithm of that number to a key's logits (`proportional_attention`). `merge_scope`
    "image" merges image tokens and protects the image's CLS; "joint" matches the whole sequence, text with image, and
    protects the text's CLS. `schedule` "decreasing" falls linearly from 2r in the first block to 0 in the last.
    """

    merges = True
    options = frozenset({"r", "schedule", "merge_scope", "proportional_attention"})

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.joint = config.merge_scope == "joint"
        self.proportional_attention = config.proportional_attention
        self.merged = merge_schedule(config.r, config.schedule, num_layers)

    def stages(self) -> tuple[Stage, ...]:
        """One stage in each block that merges."""
        return tuple(Stage("fusion", layer, "before_ffn") for layer, merged in enumerate(self.merged) if merged)

    def counts(self, stage: Stage, text, image, first):
        """`r` fewer, at most half of those that may merge; in the joint form their sum is meant."""
        candidates = text + image if self.joint else image
        return text, image - torch.clamp((candidates - 1) // 2, max=self.merged[stage.layer])

    def keep(self, stage: Stage, context: FusionContext) -> Keep:
        """Match and merge, weighted by size."""
        tokens = context.tokens
        among = tokens.valid if self.joint else tokens.image
        merged = torch.clamp((among.sum(-1) - 1) // 2, max=self.merged[stage.layer])
        target = bipartite_targets(context.keys(), ordered_indices(among), merged)
        target = torch.where(among, target, staying_target(tokens.valid))
        return Keep.from_target(target, weights=tokens.size)


def merge_schedule(r: int, schedule: str, num_layers: int) -> list[int]:
    """Tokens that merge in each block.

    Parameters
    ----------
    r : int
        Mean over blocks.
    schedule : {"constant", "decreasing"}
        The same number in every block, or linearly from 2r to 0, rounded down.
    num_layers : int
        Number of blocks.
    """
    if schedule == "constant" or num_layers == 1:
        return [r] * num_layers
    return [2 * r * (num_layers - 1 - layer) // (num_layers - 1) for layer in range(num_layers)]
