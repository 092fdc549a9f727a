"""What an encoder of text and image costs: multiply-accumulates (MACs), from its configuration and its reducer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lmms_tokendrop.modeling.core.fusion_plan import build_fusion_reducer, plan
from lmms_tokendrop.modeling.core.reducer import TokenReducer
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.modeling.ops.image_patches import grid_side

ImageSize = int | tuple[int, int] | None
Built = tuple[TokenReducer, int]


def encoder_layer_macs(config: Any, attention_tokens: int, ffn_tokens: int) -> int:
    """MACs of one block.

    Parameters
    ----------
    config
        The encoder's configuration.
    attention_tokens, ffn_tokens
        Tokens that the attention and the feed-forward network process.

    Returns
    -------
    int
        Projections, attention in full, and the feed-forward network; norms, and what a reducer computes to decide,
        are left out.
    """
    width = config.hidden_size
    attention = attention_tokens * (4 * width * width + 2 * attention_tokens * width)
    return attention + 2 * ffn_tokens * width * config.intermediate_size


def patch_embedding_macs(config: Any, patches: int) -> int:
    """MACs of the patch embedding."""
    return patches * config.num_channels * config.patch_size**2 * config.hidden_size


def encoder_macs(config: Any, attention_tokens: Sequence[int], ffn_tokens: Sequence[int], patches: int) -> int:
    """MACs of the encoder with its patch embedding, without pooler and head.

    Parameters
    ----------
    config
        The encoder's configuration.
    attention_tokens, ffn_tokens
        Tokens of each block, text and padding included.
    patches
        Patches of the image.
    """
    layers = zip(attention_tokens, ffn_tokens, strict=True)
    return patch_embedding_macs(config, patches) + sum(encoder_layer_macs(config, *lengths) for lengths in layers)


def built_reducer(architecture: str, config: Any, token_reduction: dict, image_size: ImageSize) -> Built:
    """A method, and the patches that it lets the encoder have of an image.

    Parameters
    ----------
    architecture
        Name in the catalogue.
    config
        The encoder's configuration.
    token_reduction
        Options of the architecture's reductions.
    image_size
        Height and width in pixels, or the side of a square; None: the configuration's.
    """
    known = reductions(architecture)
    reducer = build_fusion_reducer(known, known.from_dict(token_reduction), config)
    size = image_size or config.image_size
    sides = (size, size) if isinstance(size, int) else size
    return reducer, math.prod(grid_side(side, config.patch_size, reducer.image_scale) for side in sides)


def planned_macs(config: Any, token_reduction: dict, text_tokens: int, image_size: ImageSize = None) -> int:
    """MACs for an image, from the counts that a method plans, DynamicViT's predictors included.

    Parameters
    ----------
    config
        The encoder's configuration.
    token_reduction
        Options of `FusionReductionConfig`.
    text_tokens
        Tokens of the text, without padding.
    image_size
        Height and width in pixels, or the side of a square; None: the configuration's.
    """
    reducer, patches = built_reducer("vilt", config, token_reduction, image_size)
    lengths = plan(reducer, text_tokens, 1 + patches, config.num_hidden_layers)
    return encoder_macs(config, *lengths, patches) + reducer.module_macs(text_tokens, 1 + patches)
