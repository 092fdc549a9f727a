"""LLaVA-NeXT with fewer visual tokens."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextModel
from transformers.models.llava_next.modeling_llava_next import (
    LlavaNextModelOutputWithPast,
    LlavaNextMultiModalProjector,
    image_size_to_num_patches,
)

from ..core.decoder_options import setting
from ..core.loading import read_as
from ..core.staged_generation import StagedGenerationMixin
from ..core.staged_vlm import with_reduction
from ..core.tile_layout import pack_flat
from ..core.tiled_features import TiledFeatures
from ..core.token_drop_config import TokenDropConfig
from ..core.vision_inputs import check_image_sizes
from ..methods.available import reductions
from .processing_llava_next_tokendrop import FlatLlavaNextProcessor, LlavaNextTokenDropProcessor  # noqa: F401, go where the model goes

TokenReductionConfig = reductions("llava_next")
"""The methods, and what options mean for them."""


class LlavaNextTokenDropConfig(TokenDropConfig, LlavaNextConfig):
    """LLaVA-NeXT's configuration and a `token_reduction`."""

    model_type = "llava_next_tokendrop"
    reduction_class = TokenReductionConfig


@dataclass
class LlavaNextTokenDropModelOutput(LlavaNextModelOutputWithPast):
    """The model's output, and `index [batch, kept]`: the place of each state's token in the unreduced sequence."""

    index: torch.Tensor | None = None


class LlavaNextTokenDropModel(TiledFeatures, LlavaNextModel):
    """LLaVA-NeXT without language modelling head, with a token reducer."""

    output_class = LlavaNextTokenDropModelOutput
    projector_class = LlavaNextMultiModalProjector
    config: LlavaNextTokenDropConfig

    def __init__(self, config: LlavaNextTokenDropConfig):
        super().__init__(config)
        self.vocab_size, width = config.text_config.vocab_size, config.text_config.hidden_size
        self.image_newline = nn.Parameter(torch.randn(width) * width**-0.5)
        self.post_init()

    def tiling(self, pixel_values: torch.Tensor, image_sizes: Any) -> tuple[list[int], Callable[..., list]]:
        """Tiles and packing of any-resolution images; with `packing="flat"` the stock processor does not fit."""
        check_image_sizes(pixel_values, image_sizes)
        image_size, pinpoints = self.config.vision_config.image_size, self.config.image_grid_pinpoints
        tiles_per_image = [image_size_to_num_patches(size, pinpoints, image_size) for size in image_sizes]

        def pack(features: list[torch.Tensor], newline: torch.Tensor = self.image_newline) -> list[torch.Tensor]:
            return self.pack_image_features(features, image_sizes, "default", newline)[0]

        return tiles_per_image, pack_flat if setting(self.used_reducer.options, "packing") == "flat" else pack


class LlavaNextTokenDropForConditionalGeneration(StagedGenerationMixin, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT that drops or merges visual tokens, as `config.token_reduction` says."""

    base_class = LlavaNextTokenDropModel
    config: LlavaNextTokenDropConfig
    forward = with_reduction(LlavaNextForConditionalGeneration.forward)


read_as("llava_next", "LlavaNextTokenDropForConditionalGeneration", LlavaNextTokenDropConfig.model_type)
read_as("LlavaNextModel", "LlavaNextTokenDropModel")
