"""The options of a reduction in an encoder of text and image, and the methods that read them."""

from dataclasses import dataclass
from typing import ClassVar

from .fusion_stages import FusionReducer, NoFusionReduction
from .reducer_dynamicvit import DynamicViT
from .reducer_fusion_baselines import ClsAttentionPruning, RandomPruning, SmallerResolution
from .reducer_pumer import PuMer
from .reducer_tome import ToMe
from .reduction_options import ReductionOptions, option

FUSION_REDUCERS: dict[str, type[FusionReducer]] = {
    "none": NoFusionReduction,
    "pumer": PuMer,
    "tome": ToMe,
    "dynamicvit": DynamicViT,
    "random": RandomPruning,
    "cls_attention": ClsAttentionPruning,
    "smres": SmallerResolution,
}

_PUMER_VILT = {"prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}

FUSION_PRESETS: dict[str, dict] = {
    "vilt-vqav2": {"layers": [2, 5, 8], **_PUMER_VILT},
    "vilt-snli-ve": {"layers": [2, 4, 6, 8], **_PUMER_VILT},
    "vilt-nlvr2": {"layers": [2, 5, 8], **_PUMER_VILT},
}
"""PuMer's published settings for ViLT-B/32, by task. For retrieval none is stated."""


@dataclass
class FusionReductionConfig(ReductionOptions):
    """Options of a reduction in an encoder of text and image. Build it with :meth:`from_dict`, which checks everything.

    The help text of each option is in its field's metadata; the README prints them as a table.
    """

    reducers: ClassVar[dict] = FUSION_REDUCERS
    presets: ClassVar[dict] = FUSION_PRESETS

    method: str = option("none", "The method.", allowed=tuple(FUSION_REDUCERS))
    preset: str | None = option(None, "PuMer's setting for a task.", allowed=tuple(FUSION_PRESETS))
    layers: list[int] | None = option(
        None, "Blocks (zero-based) that drop or merge; default: 2, 5, 8 (dynamicvit: 3, 6, 9) of 12, scaled."
    )
    prune_ratio: float | None = option(
        None,
        "Share of the image tokens before a stage that leaves; default: 0.1, without merging 0.4.",
        low=0,
        high=1,
    )
    image_merge_ratio: float = option(
        0.3,
        "Share of the image tokens before a stage that merges into others, at most half of the rest.",
        low=0,
        high=1,
    )
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
    r: int = option(13, "Tokens that merge in each block.", low=1)
    schedule: str = option(
        "constant", "The same `r` in every block, or linearly from twice that to 0.", allowed=("constant", "decreasing")
    )
    merge_scope: str = option(
        "image", "Merge image tokens, or the whole sequence jointly, text with image.", allowed=("image", "joint")
    )
    proportional_attention: bool = option(True, "Add the logarithm of a token's size to the logits of its key.")
    cls_token: str = option("text", "The CLS token whose attention counts.", allowed=("text", "image"))
    keep_ratio: float = option(
        0.7, "Share of the patches that each stage leaves: the ratio, its square, its cube.", low=1e-9, high=1
    )
    image_size: int | None = option(
        None,
        "Side in pixels to which images of the model's own size, and others in proportion, are reduced; "
        "smres: five sixths.",
        low=1,
    )
    seed: int = option(0, "Seed of random choices; each sample adds its own.", low=0)

    def smaller_size(self, image_size: int) -> int | None:
        """The option `image_size`, checked against the size that the encoder was made for."""
        if self.image_size is not None and self.image_size >= image_size:
            raise ValueError(
                f"image_size={self.image_size}: the encoder's own is {image_size}, so nothing would happen; "
                f"allowed: 1 to {image_size - 1}"
            )
        return self.image_size

    def build(self, num_layers: int, hidden_size: int, image_size: int) -> FusionReducer:
        """The reducer for an encoder.

        Parameters
        ----------
        num_layers, hidden_size : int
            Blocks and channels of the encoder.
        image_size : int
            Side of the images that the encoder was made for.
        """
        return self.reducers[self.method](self, num_layers, hidden_size, image_size)
