"""What METER costs: multiply-accumulates (MACs) of its parts, from its configuration and its reducer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmms_tokendrop.benchmark.encoder_accounting import (
    ImageSize,
    built_reducer,
    encoder_layer_macs,
    patch_embedding_macs,
)
from lmms_tokendrop.modeling.core.fusion_plan import plan_apart


@dataclass(frozen=True)
class MeterMacs:
    """MACs of METER's parts; poolers and head are left out.

    Attributes
    ----------
    text, vision : int
        Of the towers; the vision tower's with the patch embedding.
    cross_modal : int
        Of the pairs of layers, what projects the towers' states for them, and a method's trained modules.
    """

    text: int
    vision: int
    cross_modal: int

    @property
    def total(self) -> int:
        """Of all parts."""
        return self.text + self.vision + self.cross_modal

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the total."""
        return {name: getattr(self, name) / self.total for name in ("text", "vision", "cross_modal")}


def cross_layer_macs(config: Any, tokens: int, other: int, ffn_tokens: int) -> int:
    """MACs of one cross-modal layer.

    Parameters
    ----------
    config
        METER's configuration.
    tokens, other
        Tokens of the layer's own modality and of the one that it attends to.
    ffn_tokens
        Tokens that the feed-forward network processes.
    """
    width = config.hidden_size
    queries_and_outputs, keys_and_values = 2 * tokens * width * width, 2 * other * width * width
    attention = queries_and_outputs + keys_and_values + 2 * tokens * other * width
    return encoder_layer_macs(config, tokens, ffn_tokens) + attention


def meter_macs(config: Any, token_reduction: dict, text_tokens: int, image_size: ImageSize = None) -> MeterMacs:
    """MACs for an image, from the counts that a method plans.

    Parameters
    ----------
    config
        METER's configuration.
    token_reduction
        Options of `MeterReductionConfig`.
    text_tokens
        Tokens of the text, without padding.
    image_size
        Height and width in pixels, or the side of a square; None: the configuration's.
    """
    reducer, patches = built_reducer("meter", config, token_reduction, image_size)
    vision_config = config.vision_config
    blocks = vision_config.num_hidden_layers
    tower = plan_apart(reducer, 0, 1 + patches, blocks, "vision")
    lengths = zip(*([image for _, image in point] for point in tower), strict=True)
    vision = [encoder_layer_macs(vision_config, *pair) for pair in lengths]
    text_config, image_tokens = config.text_config, tower[1][-1][1]
    text = encoder_layer_macs(text_config, text_tokens, text_tokens) * text_config.num_hidden_layers
    projections = text_tokens * text_config.hidden_size + image_tokens * vision_config.hidden_size
    cross_modal = projections * config.hidden_size + reducer.module_macs(text_tokens, image_tokens)
    pairs = plan_apart(reducer, text_tokens, image_tokens, config.num_hidden_layers)
    for (words, patches_before), (words_left, patches_left) in zip(*pairs, strict=True):
        read = words_left if reducer.sequential else words
        cross_modal += cross_layer_macs(config, words, patches_before, words_left)
        cross_modal += cross_layer_macs(config, patches_left, read, patches_left)
    return MeterMacs(text, patch_embedding_macs(vision_config, patches) + sum(vision), cross_modal)


def planned_meter_macs(config: Any, token_reduction: dict, text_tokens: int, image_size: ImageSize = None) -> int:
    """The sum of :func:`meter_macs`."""
    return meter_macs(config, token_reduction, text_tokens, image_size).total
