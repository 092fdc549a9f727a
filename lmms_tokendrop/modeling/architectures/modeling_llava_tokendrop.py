"""LLaVA-1.5 with fewer visual tokens."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from dataclasses import dataclass

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaModel
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast, LlavaMultiModalProjector

from ..core.loading import read_as
from ..core.staged_generation import StagedGenerationMixin
from ..core.staged_vlm import with_reduction
from ..core.tiled_features import TiledFeatures
from ..core.token_drop_config import TokenDropConfig
from ..methods.available import reductions


class LlavaTokenDropConfig(TokenDropConfig, LlavaConfig):
    """LLaVA-1.5's configuration and a `token_reduction`."""

    model_type = "llava_tokendrop"
    reduction_class = reductions("llava")


@dataclass
class LlavaTokenDropModelOutput(LlavaModelOutputWithPast):
    """The model's output, and `index [batch, kept]`: the place of each state's token in the unreduced sequence."""

    index: torch.Tensor | None = None


class LlavaTokenDropModel(TiledFeatures, LlavaModel):
    """LLaVA-1.5 without language modelling head, with a token reducer; an image is one tile."""

    output_class = LlavaTokenDropModelOutput
    projector_class = LlavaMultiModalProjector
    config: LlavaTokenDropConfig

    def __init__(self, config: LlavaTokenDropConfig):
        super().__init__(config)
        self.post_init()


class LlavaTokenDropForConditionalGeneration(StagedGenerationMixin, LlavaForConditionalGeneration):
    """LLaVA-1.5 that drops or merges visual tokens, as `config.token_reduction` says."""

    base_class = LlavaTokenDropModel
    config: LlavaTokenDropConfig
    forward = with_reduction(LlavaForConditionalGeneration.forward)


read_as("llava", "LlavaTokenDropForConditionalGeneration", LlavaTokenDropConfig.model_type)
read_as("LlavaModel", "LlavaTokenDropModel")
