"""The pocket METER with its training losses: answers, attention guidance, and one on the patches."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.roberta.modeling_roberta import RobertaAttention

from lmms_tokendrop.modeling.architectures.meter_layers import MeterCrossLayer
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForQuestionAnswering
from pocket.encoder_losses import HIDDEN, EncoderTrainingModel, attend
from pocket.meter import IMAGE_SIZE, PATCH, pixel_values

GUIDED_PAIRS = range(4)
"""Pairs in which guided heads of the text learn to look at what is asked about; PuMer reads them from the first on."""


class MeterTrainingModel(EncoderTrainingModel):
    """A METER that reads several questions about one picture at a time.

    The picture passes the vision tower once. With one question per picture the picture attends to the question, as in
    METER; with several it attends to none, and all questions attend to the same picture.

    Parameters
    ----------
    model
        The model to train.
    """

    def __init__(self, model: MeterForQuestionAnswering) -> None:
        super().__init__(model, model.config.vision_config.hidden_size)
        model.set_attn_implementation({"text_config": "eager", "": "eager"})

    def answers(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the model; see `EncoderTrainingModel.answers`."""
        meter = self.model.meter
        ids, mask = batch["input_ids"], batch["attention_mask"]
        rows, questions, length = ids.shape
        patches = self._vision(batch["images"], batch["corner"])
        words = meter.get_text_features(ids.flatten(0, 1), mask.flatten(0, 1).long())
        types = meter.token_type_embeddings.weight
        text = meter.cross_modal_text_transform(words) + types[0]
        image = meter.cross_modal_image_transform(patches) + types[1]
        bias = torch.where(mask.flatten(0, 1), 0.0, HIDDEN)[:, None, None]
        starts = torch.arange(questions, device=ids.device) * length
        seen = []
        layers = zip(meter.cross_modal_text_layers, meter.cross_modal_image_layers, strict=True)
        for number, (text_layer, image_layer) in enumerate(layers):
            own = self._attend(text_layer.attention, text, text, bias)[0].view(rows, questions * length, -1)
            asked = starts if number in GUIDED_PAIRS else None
            crossed, weights = self._attend(text_layer.crossattention, own, image, None, asked)
            image = self._image_layer(image_layer, image, text if questions == 1 else None, bias)
            text = text_layer.feed_forward(crossed).view(rows * questions, length, -1)
            seen += [] if weights is None else [weights[..., 1:]]
        pooled_text = meter.cross_modal_text_pooler(text).view(rows, questions, -1)
        pooled_image = meter.cross_modal_image_pooler(image)[:, None].expand_as(pooled_text)
        logits = self.model.classifier(torch.cat([pooled_text, pooled_image], dim=-1))
        return logits, patches[:, 1:], torch.cat(seen, dim=1)

    def _vision(self, images: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
        tower = self.model.meter.vision_model
        embeddings = tower.embeddings
        states = embeddings.patch_embedding(pixel_values(images))
        side, grid = states.shape[-1], IMAGE_SIZE // PATCH
        positions = embeddings.position_embedding.weight
        top, left = corner.tolist()
        window = positions[1:].unflatten(0, (grid, grid))[top : top + side, left : left + side].flatten(0, 1)
        cls = (embeddings.class_embedding + positions[0]).expand(len(images), 1, -1)
        states = torch.cat([cls, states.flatten(2).transpose(1, 2) + window], dim=1)
        states = tower.pre_layernorm(states)
        for layer in tower.layers:
            attention = layer.self_attn
            normed = layer.layer_norm1(states)
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            query, key, value = (part(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in parts)
            states = states + attention.out_proj(attend(query, key, value, None, None)[0])
            states = states + layer.mlp(layer.layer_norm2(states))
        return tower.post_layernorm(states)

    def _image_layer(
        self, layer: MeterCrossLayer, image: torch.Tensor, text: torch.Tensor | None, bias: torch.Tensor
    ) -> torch.Tensor:
        own = self._attend(layer.attention, image, image, None)[0]
        if text is None:
            return layer.feed_forward(layer.crossattention.output.LayerNorm(own))
        return layer.feed_forward(self._attend(layer.crossattention, own, text, bias)[0])

    def _attend(
        self,
        attention: RobertaAttention,
        states: torch.Tensor,
        other: torch.Tensor,
        bias: torch.Tensor | None,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads = (self.model.config.num_attention_heads, -1)
        part = attention.self
        query, key, value = (
            layer(source).unflatten(-1, heads).transpose(1, 2)
            for layer, source in ((part.query, states), (part.key, other), (part.value, other))
        )
        context, weights = attend(query, key, value, bias, rows)
        return attention.output(context, states), weights
