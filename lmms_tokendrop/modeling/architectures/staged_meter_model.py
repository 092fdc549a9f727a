"""METER with fewer tokens: its configuration, its loading and its encoder; the heads are beside it."""

from typing import ClassVar

import torch
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import check_inputs, checked_seeds
from ..core.fusion_plan import build_fusion_reducer
from ..core.fusion_tokens import FusionTokens
from ..core.loading import TokenDropLoading
from ..core.token_drop_config import TokenDropConfig
from ..methods.available import reductions
from ..ops.image_patches import grid_side, shrink_images
from .meter_model import MeterConfig, MeterModel, MeterModelOutput, MeterPreTrainedModel
from .staged_meter import CoAttention, StagedMeterTextLayer
from .staged_meter_vision import StagedMeterVisionModel

MeterReductionConfig = reductions("meter")
"""The methods, and what options mean for them."""


class MeterTokenDropConfig(TokenDropConfig, MeterConfig):
    """METER's configuration and a `token_reduction`."""

    model_type = "meter_tokendrop"
    reduction_class = MeterReductionConfig


class MeterTokenDropPreTrainedModel(TokenDropLoading, MeterPreTrainedModel):
    """Loading that all classes share."""

    config: MeterTokenDropConfig
    config_class = MeterTokenDropConfig
    _no_split_modules: ClassVar = ["MeterTokenDropModel"]


class MeterTokenDropModel(MeterTokenDropPreTrainedModel, MeterModel):
    """METER without head, with a token reducer."""

    text_layer_class = StagedMeterTextLayer
    vision_class = StagedMeterVisionModel

    def __init__(self, config: MeterTokenDropConfig):
        super().__init__(config)
        self.token_reducer = build_fusion_reducer(
            reductions("meter"), MeterTokenDropConfig.reduction_of(config), config
        )
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """States `[batch, what is left, channels]` of the vision tower, CLS first, of `[batch, 3, height, width]`."""
        return self.encode_images(pixel_values)[0]

    def encode_images(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, FusionTokens, list[int]]:
        """Run the vision tower, on smaller images if the method says so.

        See :meth:`StagedMeterVisionModel.forward_staged`.
        """
        scale = self.token_reducer.image_scale
        if scale != 1:
            pixel_values, _ = shrink_images(pixel_values, None, scale, self.config.patch_size)
        return self.vision_model.forward_staged(pixel_values, self.token_reducer)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        image_token_type_idx: int = 1,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.Tensor | None = None,
    ) -> MeterModelOutput:
        """Run the encoder.

        Parameters
        ----------
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As :meth:`MeterModel.forward` takes them. The report does not know what merged into `image_embeds`.

        Returns
        -------
        MeterModelOutput
            States padded on the right; `report` says what happened to the tokens, per pair of layers.
        """
        texts = {"input_ids": input_ids, "text_embeds": text_embeds}
        images = {"pixel_values": pixel_values, "image_embeds": image_embeds}
        attention_mask = check_inputs(texts, images, attention_mask)
        vision_tokens: list[int] = []
        if image_embeds is None:
            full_image_tokens = self.full_image_tokens(pixel_values)
            image_embeds, tokens, vision_tokens = self.encode_images(pixel_values)
        else:
            full_image_tokens = [image_embeds.shape[1]] * len(image_embeds)
            tokens = FusionTokens.of_image(image_embeds)
        text, image = self.embed(input_ids, attention_mask, None, text_embeds, image_embeds, image_token_type_idx)
        sample_seeds = checked_seeds(sample_seeds, len(text))
        tokens = tokens.behind_text(attention_mask.bool())
        run = CoAttention.start(self.token_reducer, tokens, sample_seeds, self.training, text, image)
        run.report.vision_tokens, run.report.patches = vision_tokens, self.patches(pixel_values)
        run.report.full_image_tokens = full_image_tokens
        keep_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        keep_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        collected, attentions = [(run.text, run.image)], []
        for number, layers in enumerate(zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True)):
            attentions.append(run.run_pair(number, *layers, keep_attentions))
            collected.append((run.text, run.image))
        return MeterModelOutput(
            text_states=run.text,
            image_states=run.image,
            pooler_output=self.pool(run.text, run.image_head()),
            hidden_states=tuple(collected) if keep_states else None,
            attentions=tuple(attentions) if keep_attentions else None,
            report=run.report,
        )

    def full_image_tokens(self, pixel_values: torch.Tensor) -> list[int]:
        """Tokens of each of `[batch, 3, height, width]`, CLS included, if it is not scaled down and nothing merges."""
        height, width = (grid_side(length, self.config.patch_size) for length in pixel_values.shape[-2:])
        return [1 + height * width] * len(pixel_values)

    def patches(self, pixel_values: torch.Tensor | None) -> torch.Tensor | None:
        """Row and column `[batch, patches, 2]` of each patch of the sequence that the vision tower reads."""
        if pixel_values is None:
            return None
        scale, side = self.token_reducer.image_scale, self.config.patch_size
        height, width = (grid_side(length, side, scale) for length in pixel_values.shape[-2:])
        grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(pixel_values.device)
        return grid.expand(len(pixel_values), -1, -1)
