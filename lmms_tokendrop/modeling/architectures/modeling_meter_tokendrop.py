"""METER with fewer tokens: configuration, encoder, and heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from typing import Any, ClassVar

import torch

from ..core.fusion_heads import checked_seeds
from ..core.fusion_plan import ReducedEncoder
from ..core.fusion_tokens import FusionReport, FusionTokens
from ..core.loading import TokenDropLoading
from ..core.reducer import TokenReducer
from ..core.staged_tower import StagedCLIPLayer, run_blocks
from ..core.token_drop_config import TokenDropConfig
from ..methods.available import reductions
from ..ops.image_patches import grid_side, shrink_images
from .meter_layers import MeterVisionModel
from .meter_model import MeterConfig, MeterModel, MeterPreTrainedModel
from .modeling_meter import (
    MeterForImageAndTextRetrieval,
    MeterForImagesAndTextClassification,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
)
from .staged_meter import CoAttention

MeterReductionConfig = reductions("meter")
"""The methods, and what options mean for them."""


class MeterTokenDropConfig(TokenDropConfig, MeterConfig):
    """METER's configuration and a `token_reduction`."""

    model_type = "meter_tokendrop"
    reduction_class = MeterReductionConfig


class MeterTokenDropPreTrainedModel(TokenDropLoading, MeterPreTrainedModel):
    """Loading that all classes share."""

    config: MeterTokenDropConfig
    _no_split_modules: ClassVar = ["MeterTokenDropModel"]


class StagedMeterVisionModel(MeterVisionModel):
    """METER's vision tower with the stages of a reducer."""

    layer_class = StagedCLIPLayer

    def forward_staged(self, pixel_values: torch.Tensor, reducer: TokenReducer) -> tuple:
        """Encode images.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`.
        reducer : TokenReducer
            The method.

        Returns
        -------
        tuple[torch.Tensor, FusionTokens, list[int]]
            States `[batch, what is left, channels]`, CLS first, what they are, and the number of tokens that the
            attention of each block processed.
        """
        if not reducer.stages_at("vision"):
            states = self(pixel_values)
            return states, FusionTokens.of_image(states), [states.shape[1]] * len(self.layers)
        depth = len(self.layers)
        run = run_blocks(self, self.layers, self.embed(pixel_values), [depth], reducer)
        lengths = [tokens.valid.shape[1] for tokens in run.report.received]
        return self.post_layernorm(run.collected[depth]), run.tokens, lengths


class MeterTokenDropModel(ReducedEncoder, MeterTokenDropPreTrainedModel, MeterModel):
    """METER without head, with a token reducer.

    The forward pass takes `sample_seeds [batch]` too, by name: seeds of methods that draw at random; default: 0. Its
    states are padded on the right, and its `report` says what happened to the tokens, per pair of layers.
    """

    vision_class = StagedMeterVisionModel

    def __init__(self, config: MeterTokenDropConfig):
        super().__init__(config)
        self.token_reducer = self.build_reducer(MeterTokenDropConfig.reduction_of(config))
        self.post_init()

    def encode_images(self, pixel_values, image_embeds) -> tuple[torch.Tensor, dict[str, Any]]:
        """Run the vision tower, on smaller images if the method says so.

        Returns
        -------
        tuple[torch.Tensor, dict]
            States `[batch, what is left, channels]`, CLS first; as `tokens` what they are, and fields of the report,
            which does not know what merged into `image_embeds`.
        """
        if image_embeds is not None:
            full = [image_embeds.shape[1]] * len(image_embeds)
            return image_embeds, {"tokens": FusionTokens.of_image(image_embeds), "full_visual_tokens": full}
        size, scale = self.config.patch_size, self.used_reducer.image_scale
        full = self.full_image_tokens(pixel_values)
        if scale != 1:
            pixel_values, _ = shrink_images(pixel_values, torch.ones_like(pixel_values[:, 0]), scale, size)
        grid = torch.cartesian_prod(*(torch.arange(side // size) for side in pixel_values.shape[-2:]))
        patches = grid.to(pixel_values.device).expand(len(pixel_values), -1, -1)
        states, tokens, lengths = self.vision_model.forward_staged(pixel_values, self.used_reducer)
        return states, {"tokens": tokens, "vision_tokens": lengths, "patches": patches, "full_visual_tokens": full}

    def full_image_tokens(self, pixel_values: torch.Tensor) -> list[int]:
        """Tokens of each of `[batch, 3, height, width]`, CLS included, if it is not scaled down and nothing merges."""
        height, width = (grid_side(length, self.config.patch_size) for length in pixel_values.shape[-2:])
        return [1 + height * width] * len(pixel_values)

    def fuse(self, text, image, text_valid, keep_attentions, *, tokens, sample_seeds=None, **reported):  # type: ignore[override]
        """Run the pairs of cross-modal layers and their stages; see :meth:`MeterModel.fuse`.

        Parameters
        ----------
        tokens : FusionTokens
            Those of the image.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        **reported
            Fields of the report.
        """
        seeds, tokens = checked_seeds(sample_seeds, len(text)), tokens.behind_text(text_valid)
        run = CoAttention(self.used_reducer, tokens, seeds, self.training, text, image)
        run.report = FusionReport(**reported)
        states, attentions = [(run.text, run.image)], []
        for number, layers in enumerate(zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True)):
            attentions.append(run.run_pair(number, *layers, keep_attentions))
            states.append((run.text, run.image))
        return states, attentions, run.image_head(), run.report


class _MeterTokenDropHead(MeterTokenDropPreTrainedModel):
    encoder_class = MeterTokenDropModel


class MeterTokenDropForQuestionAnswering(_MeterTokenDropHead, MeterForQuestionAnswering):
    """METER with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says.

    These heads take what the stock ones take, and `sample_seeds`; their outputs have a `report`.
    """


class MeterTokenDropForVisualEntailment(_MeterTokenDropHead, MeterForVisualEntailment):
    """METER with a classifier over contradiction, neutral and entailment (SNLI-VE) that drops or merges tokens."""


class MeterTokenDropForImageAndTextRetrieval(_MeterTokenDropHead, MeterForImageAndTextRetrieval):
    """METER with a score of how well a text fits an image that drops or merges tokens."""


class MeterTokenDropForImagesAndTextClassification(_MeterTokenDropHead, MeterForImagesAndTextClassification):
    """METER with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The text is reduced anew beside each image.
    """
