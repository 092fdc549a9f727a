"""The methods whose form in METER, with its two streams and its CLIP tower, is its own."""

import torch

from .fusion_stages import FusionContext, NoFusionReduction
from .reducer_fusion_baselines import ClsAttentionPruning, ScoredPruning
from .reducer_pumer import PuMer, halves_apart
from .reducer_tome import ToMe

DEFAULT_VISION_R = 24


class MeterPuMer(PuMer):
    """PuMer in METER, behind the two attentions of the text's layer of a pair.

    Text is matched by the keys of its self-attention, the image by its keys for the text; the text's attention to the
    image is the score. The image's layer of the pair runs on what is left of the image, and reads the text as it was
    before the pair. With `vision_r`, ToMe merges patches in each block of the CLIP tower before all that.

    `reference="release"` also follows the published code where METER differs from ViLT:

    ================================ ======================================== ======================================
    what                             `paper` (default)                        `release`
    ================================ ======================================== ======================================
    pairs of layers                  both read what was before the pair       the image's layer reads the text that
                                                                              the text's layer left
    the image's head                 reads the image's CLS                    reads the patch of the highest score
                                                                              in the last stage
    a masked key                     counts for nobody                        in attention to the other modality,
                                                                              counts for the query of its number
    `image_merge_ratio=0`            pruning works alone                      an error: nothing would happen
    ================================ ======================================== ======================================
    """

    options = PuMer.options | {"vision_r"}

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.vision_r = config.vision_r
        self.sequential = self.counts_padding
        if self.counts_padding and not config.image_merge_ratio:
            raise ValueError(
                "pumer: in METER, the release does nothing at image_merge_ratio=0; allowed there: reference='paper'"
            )

    def release_acts(self, pruned: torch.Tensor) -> torch.Tensor:
        """The released METER asks for the ratio, not for the number of tokens."""
        return torch.ones_like(pruned)

    def release_carry(self, context: FusionContext, target, image_order, text_order) -> dict[str, torch.Tensor]:
        """Also the order of the image, and the token that its head reads."""
        carry = super().release_carry(context, target, image_order, text_order)
        image = context.tokens.image
        carry["image_rank"] = halves_apart(image_order, image)
        carry["image_head"] = torch.zeros_like(carry["image_rank"]).scatter(1, image_order[:, :1], 1.0)
        return carry


class MeterToMe(ToMe):
    """Merge `r` image tokens in every pair, behind the attentions of the text's layer.

    The image's keys for the text, averaged over heads, are matched; merged tokens are means weighted by the number of
    tokens that each stands for, and attention to the image adds the logarithm of that number to a key's logits
    (`proportional_attention`). The image's CLS is protected. `schedule` "decreasing" falls linearly from 2r in the
    first pair to 0 in the last.
    """

    options = frozenset({"r", "schedule", "proportional_attention"})


class VisionToMe(NoFusionReduction):
    """Merge `vision_r` patches in each block of the CLIP tower, before its MLP, and nothing afterwards.

    As ToMe does in ViT: matched by keys, weighted by size, with proportional attention; CLS is protected.
    """

    merges = True
    options = frozenset({"vision_r"})

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.vision_r = config.vision_r or DEFAULT_VISION_R


class MeterClsAttentionPruning(ClsAttentionPruning):
    """Keep the image tokens that the text's CLS attends most."""

    options = ScoredPruning.options
