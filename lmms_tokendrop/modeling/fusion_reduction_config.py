"""The options of a reduction in an encoder of text and image, and the methods that read them."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .fusion_stages import FusionReducer, NoFusionReduction
from .image_patches import grid_side
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
        0.7, "Share of the patches that each stage leaves, below 1: the ratio, its square, its cube.", low=1e-9, high=1
    )
    image_size: int | None = option(
        None,
        "Side in pixels to which images of the model's own size, and others in proportion, are reduced; "
        "smres: five sixths; to whole patches, of which there must be fewer.",
        low=1,
    )
    seed: int = option(0, "Seed of random choices; each sample adds its own.", low=0)

    def build(self, config) -> FusionReducer:
        """The reducer for an encoder.

        Parameters
        ----------
        config : PreTrainedConfig
            The encoder's: its blocks (METER: pairs of cross-modal layers), channels, sides of images and of patches,
            and positions of the text if it reads any.

        Raises
        ------
        ValueError
            If a layer cannot act, or if nothing would happen to an image of the encoder's own size and the longest
            text.
        """
        reducer = self.reducers[self.method](self, config.num_hidden_layers, config.hidden_size, config.image_size)
        if reducer.image_size is not None:
            check_smaller(reducer.image_size, config.image_size, config.patch_size)
        if reducer.stages():
            check_reduces(self.method, reducer, config)
        return reducer


def check_smaller(image_size: int, native_size: int, patch_size: int) -> None:
    """Raise a ValueError unless images of `native_size` pixels that shrink to `image_size` have fewer patches."""

    def side(size: int) -> int:
        return grid_side(native_size, patch_size, size / native_size)

    whole = grid_side(native_size, patch_size)
    if side(image_size) >= whole:
        largest = max((size for size in range(1, native_size) if side(size) < whole), default=None)
        allowed = "none, the image has one patch" if largest is None else f"1 to {largest}"
        raise ValueError(
            f"image_size={image_size}: an image of the encoder's own size, {native_size}, would still have {whole} "
            f"patches of {patch_size} pixels a side, so nothing would happen; allowed: {allowed}"
        )


def check_reduces(method: str, reducer: FusionReducer, config) -> None:
    """Raise a ValueError if no stage takes a token of an image of the encoder's own size and of the longest text."""
    image = 1 + grid_side(config.image_size, config.patch_size) ** 2
    text = getattr(config, "max_position_embeddings", 0)
    with torch.device("cpu"):  # models are built on the meta device, which has no numbers
        _, left = reducer.plan_apart(text, image, config.num_hidden_layers)
    if left[-1] == (text, image):
        raise ValueError(
            f"{method}: its ratios leave all of {image} image and {text} text tokens, so nothing would happen"
        )
