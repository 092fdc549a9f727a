"""The options of a reduction in METER, and the methods that read them."""

from dataclasses import dataclass, replace
from typing import ClassVar

from .fusion_reduction_config import FusionReductionConfig
from .fusion_selection import fusion_layers
from .fusion_stages import FusionReducer, NoFusionReduction
from .reducer_dynamicvit import DynamicViT
from .reducer_fusion_baselines import RandomPruning, SmallerResolution
from .reducer_meter import MeterClsAttentionPruning, MeterPuMer, MeterToMe, VisionToMe
from .reduction_options import option

METER_REDUCERS: dict[str, type[FusionReducer]] = {
    "none": NoFusionReduction,
    "pumer": MeterPuMer,
    "tome": MeterToMe,
    "vision_tome": VisionToMe,
    "dynamicvit": DynamicViT,
    "random": RandomPruning,
    "cls_attention": MeterClsAttentionPruning,
    "smres": SmallerResolution,
}

_STRONG = {"prune_ratio": 0.3, "image_merge_ratio": 0.5, "text_merge_ratio": 0.2}

METER_PRESETS: dict[str, dict] = {
    "meter-vqav2": {
        "layers": [0, 2, 4, 6],
        "prune_ratio": 0.2,
        "image_merge_ratio": 0.2,
        "text_merge_ratio": 0.2,
    },
    "meter-snli-ve": {"layers": [0, 2, 4, 6], **_STRONG},
    "meter-nlvr2": {"layers": [2, 4, 6], **_STRONG},
}
"""PuMer's published settings for METER, by task. For retrieval none is stated."""

PAPER_PAIRS = 6
DEFAULT_PAIRS = {"dynamicvit": (1, 3, 5)}
PUMER_PRUNE_RATIO = 0.2


@dataclass
class MeterReductionConfig(FusionReductionConfig):
    """Options of a reduction in METER. Build it with :meth:`from_dict`, which checks everything.

    Layers are numbered as PuMer does: pair p of cross-modal layers has the layers 2p, the text's, and 2p + 1, the
    image's. Tokens leave in the text's.
    """

    reducers: ClassVar[dict] = METER_REDUCERS
    presets: ClassVar[dict] = METER_PRESETS

    method: str = option("none", "The method.", allowed=tuple(METER_REDUCERS))
    preset: str | None = option(None, "PuMer's setting for a task.", allowed=tuple(METER_PRESETS))
    layers: list[int] | None = option(
        None,
        "Layers that drop or merge, 0, 2, 4, ... for the first, second, third pair; default: 0, 2, 4, 6 (dynamicvit: "
        "2, 6, 10) of 12, scaled.",
    )
    prune_ratio: float | None = option(
        None,
        "Share of the image tokens before a stage that leaves; default: 0.2, without merging 0.4.",
        low=0,
        high=1,
    )
    image_merge_ratio: float = option(
        0.2,
        "Share of the image tokens before a stage that merges into others, at most half of the rest.",
        low=0,
        high=1,
    )
    score: str = option(
        "attention",
        "What the text says of an image token: its `attention` to the image averaged over heads, that of the "
        "`first_head`, or the product of the text's `queries` with its key.",
        allowed=("attention", "first_head", "queries"),
    )
    r: int = option(
        180, "Tokens that merge in each pair; the default costs what PuMer's setting for VQAv2 costs.", low=1
    )
    vision_r: int | None = option(
        None, "Patches that merge in each block of the CLIP tower; vision_tome: 24, pumer: none.", low=1
    )

    def build(self, config) -> FusionReducer:
        """The reducer for METER; see :meth:`FusionReductionConfig.build`.

        Raises
        ------
        ValueError
            If a layer is not the text's layer of one of the pairs, or if nothing would happen.
        """
        ratio = PUMER_PRUNE_RATIO if self.method == "pumer" and self.prune_ratio is None else self.prune_ratio
        options = replace(self, layers=self.pairs(config.num_hidden_layers), prune_ratio=ratio)
        return FusionReductionConfig.build(options, config)

    def pairs(self, num_layers: int) -> list[int]:
        """Pairs of cross-modal layers, counted from 0, in which tokens leave, of `num_layers`."""
        if self.layers is None:
            default = DEFAULT_PAIRS.get(self.method, (0, 1, 2, 3))
            return list(fusion_layers(None, num_layers, default, PAPER_PAIRS))
        wrong = [layer for layer in self.layers if layer % 2 or layer >= 2 * num_layers]
        if wrong:
            raise ValueError(
                f"layers={self.layers}: layer {wrong[0]} can't act in {num_layers} pairs of layers; allowed are the "
                f"text's layers, the even numbers from 0 to {2 * num_layers - 2}"
            )
        return [layer // 2 for layer in self.layers]
