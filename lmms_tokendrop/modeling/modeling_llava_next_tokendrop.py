"""LLaVA-NeXT with fewer visual tokens."""

from .tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaNextPreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.llava_next.modeling_llava_next import (
    LlavaNextModelOutputWithPast,
    LlavaNextMultiModalProjector,
    image_size_to_num_patches,
)

from .base_weights import BaseWeightsMixin
from .checkpoint_keys import SavesPublicKeys
from .generation import StagedGenerationMixin, check_loaded
from .processing_llava_next_tokendrop import FlatLlavaNextProcessor, LlavaNextTokenDropProcessor
from .saved_code import SavesItsCode
from .staged_decoder import staged_decoder
from .staged_vlm import with_reduction
from .stock_config import ReadsStockConfig
from .tiled_features import TiledFeatures, pack_flat
from .token_reduction_config import TokenReductionConfig
from .vision_inputs import check_image_sizes

__all__ = [
    "FlatLlavaNextProcessor",
    "LlavaNextTokenDropConfig",
    "LlavaNextTokenDropForConditionalGeneration",
    "LlavaNextTokenDropModel",
    "LlavaNextTokenDropModelOutput",
    "LlavaNextTokenDropProcessor",
]


class LlavaNextTokenDropConfig(SavesItsCode, ReadsStockConfig, LlavaNextConfig):
    """LLaVA-NeXT's configuration and a `token_reduction`.

    Parameters
    ----------
    token_reduction : dict, optional
        Options of :class:`TokenReductionConfig`, read when a model is built; None is the unreduced model.
    base_weights : dict, optional
        Hub repository and commit that hold the weights, see :class:`BaseWeightsMixin`; default: they are beside this.
    """

    model_type = "llava_next_tokendrop"
    token_reduction: dict | None = None
    base_weights: dict | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a configuration; options that were saved in an earlier format keep their meaning."""
        options, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if options.get("token_reduction") is not None:
            options = {**options, "token_reduction": TokenReductionConfig.restored(options["token_reduction"])}
        return options, kwargs

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.token_reduction = TokenReductionConfig.from_dict(self.token_reduction).to_dict()


@dataclass
class LlavaNextTokenDropModelOutput(LlavaNextModelOutputWithPast):
    """The model's output, and `index [batch, kept]`: the place of each state's token in the unreduced sequence."""

    index: torch.Tensor | None = None


class LlavaNextTokenDropModel(TiledFeatures, LlavaNextModel):
    """LLaVA-NeXT without language modelling head, with a token reducer."""

    output_class = LlavaNextTokenDropModelOutput
    config: LlavaNextTokenDropConfig

    def __init__(self, config: LlavaNextTokenDropConfig):
        LlavaNextPreTrainedModel.__init__(self, config)
        text_config = config.text_config
        options = TokenReductionConfig.from_dict(getattr(config, "token_reduction", None))
        self.token_reducer = options.build(text_config.num_hidden_layers)
        self.vision_tower = self.build_tower()
        self.multi_modal_projector = LlavaNextMultiModalProjector(config)
        self.image_newline = nn.Parameter(torch.randn(text_config.hidden_size) * text_config.hidden_size**-0.5)
        self.vocab_size = text_config.vocab_size
        self.language_model = staged_decoder(text_config)
        self.post_init()

    def tiling(self, pixel_values: torch.Tensor, image_sizes: Any) -> tuple[list[int], Callable[..., list]]:
        """Tiles and packing of any-resolution images; with `packing="flat"` the stock processor does not fit."""
        check_image_sizes(pixel_values, image_sizes)
        image_size, pinpoints = self.config.vision_config.image_size, self.config.image_grid_pinpoints
        tiles_per_image = [image_size_to_num_patches(size, pinpoints, image_size) for size in image_sizes]

        def pack(features: list[torch.Tensor], newline: torch.Tensor = self.image_newline) -> list[torch.Tensor]:
            return self.pack_image_features(features, image_sizes, "default", newline)[0]

        return tiles_per_image, pack_flat if self.token_reducer.config.packing == "flat" else pack


class LlavaNextTokenDropForConditionalGeneration(
    StagedGenerationMixin, BaseWeightsMixin, SavesPublicKeys, LlavaNextForConditionalGeneration
):
    """LLaVA-NeXT that drops or merges visual tokens, as `config.token_reduction` says."""

    config: LlavaNextTokenDropConfig
    config_class = LlavaNextTokenDropConfig
    forward = with_reduction(LlavaNextForConditionalGeneration.forward)

    def __init__(self, config: LlavaNextTokenDropConfig):
        LlavaNextPreTrainedModel.__init__(self, config)
        self.model = LlavaNextTokenDropModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        config=None,
        token_reduction=None,
        output_loading_info=False,
        **kwargs,
    ):
        """Load a stock LLaVA-NeXT checkpoint, or one of this class.

        Parameters
        ----------
        pretrained_model_name_or_path : str or os.PathLike
            Repository or folder.
        config : PreTrainedConfig, str or os.PathLike, optional
            One of the class or of the stock model, or where it is stored; default: the checkpoint's.
        token_reduction : dict, optional
            Options of :class:`TokenReductionConfig`; default: the config's.
        output_loading_info : bool, optional
            Whether to return the loading report too.
        *args, **kwargs
            As `PreTrainedModel.from_pretrained` takes them.

        Returns
        -------
        LlavaNextTokenDropForConditionalGeneration
            The model, in eval mode; with `output_loading_info` a pair of it and a dict.

        Raises
        ------
        ValueError
            If an option is wrong, or if the checkpoint's keys are not exactly the model's.
        """
        config = None if config is None else LlavaNextTokenDropConfig.of(config)
        if config is not None and token_reduction is not None:
            config = copy.deepcopy(config)
            config.token_reduction = TokenReductionConfig.from_dict(token_reduction).to_dict()
        elif token_reduction is not None:
            kwargs["token_reduction"] = TokenReductionConfig.from_dict(token_reduction).to_dict()
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
        )
        check_loaded(cls, info)
        return (model, info) if output_loading_info else model


for name in ("LlavaNextTokenDropForConditionalGeneration", LlavaNextTokenDropConfig.model_type):
    register_checkpoint_conversion_mapping(name, get_checkpoint_conversion_mapping("llava_next"), overwrite=True)
register_checkpoint_conversion_mapping(
    "LlavaNextTokenDropModel", get_checkpoint_conversion_mapping("LlavaNextModel"), overwrite=True
)
