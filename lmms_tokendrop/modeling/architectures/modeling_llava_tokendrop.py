"""LLaVA-1.5 with fewer visual tokens."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaModel, LlavaPreTrainedModel
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast, LlavaMultiModalProjector

from ..core.loading import SavesPublicKeys, TokenDropLoading, read_as
from ..core.staged_decoder import staged_decoder
from ..core.staged_vlm import StagedGenerationMixin, with_reduction
from ..core.tiled_features import TiledFeatures
from ..core.token_drop_config import TokenDropConfig
from ..methods.available import reductions

__all__ = [
    "LlavaTokenDropConfig",
    "LlavaTokenDropForConditionalGeneration",
    "LlavaTokenDropModel",
    "LlavaTokenDropModelOutput",
]


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
    config: LlavaTokenDropConfig

    def __init__(self, config: LlavaTokenDropConfig):
        LlavaPreTrainedModel.__init__(self, config)
        self.token_reducer = self.build_reducer(LlavaTokenDropConfig)
        self.vision_tower = self.build_tower()
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        self.language_model = staged_decoder(config.text_config)
        self.post_init()


class LlavaTokenDropForConditionalGeneration(
    StagedGenerationMixin, TokenDropLoading, SavesPublicKeys, LlavaForConditionalGeneration
):
    """LLaVA-1.5 that drops or merges visual tokens, as `config.token_reduction` says."""

    config: LlavaTokenDropConfig
    config_class = LlavaTokenDropConfig
    forward = with_reduction(LlavaForConditionalGeneration.forward)

    def __init__(self, config: LlavaTokenDropConfig):
        LlavaPreTrainedModel.__init__(self, config)
        self.model = LlavaTokenDropModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


read_as("llava", "LlavaTokenDropForConditionalGeneration", LlavaTokenDropConfig.model_type)
read_as("LlavaModel", "LlavaTokenDropModel")
