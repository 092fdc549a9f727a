"""PuMer in METER's pairs of layers (ACL 2023, arXiv 2305.17530)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.fusion_selection import FusionCounts, prune_option
from ..core.options import option
from ..core.reducer import Context, Host, Keep, Stage
from .pumer import PuMer, PuMerOptions, halves_apart, image_merge_option
from .tome import TowerOptions, TowerToMe

_METER = {"prune_ratio": 0.3, "image_merge_ratio": 0.5, "text_merge_ratio": 0.2}

METER_PRESETS: dict[str, dict] = {
    "meter-vqav2": {"layers": [0, 2, 4, 6], **dict.fromkeys(_METER, 0.2)},
    "meter-snli-ve": {"layers": [0, 2, 4, 6], **_METER},
    "meter-nlvr2": {"layers": [2, 4, 6], **_METER},
}
"""PuMer's published settings for METER, by task. For retrieval none is stated."""


@dataclass
class PairPuMerOptions(TowerOptions, PuMerOptions):
    """Options of PuMer in METER."""

    presets: ClassVar[dict[str, dict]] = METER_PRESETS

    preset: str | None = option(None, "PuMer's setting for a task.", allowed=tuple(METER_PRESETS))
    prune_ratio: float | None = prune_option(0.2)
    image_merge_ratio: float = image_merge_option(0.2)
    score: str = option(
        "attention",
        "What the text says of an image token: its `attention` to the image averaged over heads, that of the "
        "`first_head`, or the product of the text's `queries` with its key.",
        allowed=("attention", "first_head", "queries"),
    )


class PairPuMer(PuMer):
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

    Options = PairPuMerOptions
    default_prune_ratio: ClassVar[float] = 0.2
    release_waits: ClassVar[bool] = False  # the released METER asks for the ratio, not for the number of tokens
    proportional_attention = frozenset({"vision"})

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.sequential = self.counts_padding
        self.tower = None if options.vision_r is None else TowerToMe(options, host)
        if self.counts_padding and not options.image_merge_ratio:
            raise ValueError(
                "pumer: in METER, the release does nothing at image_merge_ratio=0; allowed there: reference='paper'"
            )

    def stages(self) -> tuple[Stage, ...]:
        """Also those of the tower."""
        return (*(self.tower.stages() if self.tower else ()), *super().stages())

    def count(self, stage: Stage, counts: FusionCounts):
        """As in the class, in the pairs."""
        return self.tower.count(stage, counts) if stage.place == "vision" else super().count(stage, counts)

    def keep(self, stage: Stage, context: Context) -> Keep:
        """As in the class, in the pairs."""
        return self.tower.keep(stage, context) if stage.place == "vision" else super().keep(stage, context)

    def release_carry(self, context: Context, target, image_order, text_order) -> dict[str, torch.Tensor]:
        """Also the order of the image, and the token that its head reads."""
        carry = super().release_carry(context, target, image_order, text_order)
        carry["image_priority"] = halves_apart(image_order, context.tokens.image)
        carry["image_head"] = torch.zeros_like(carry["image_priority"]).scatter(1, image_order[:, :1], 1.0)
        return carry
