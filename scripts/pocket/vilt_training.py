"""The pocket ViLT with its training losses: answers, attention guidance, and one on the patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import ViltForQuestionAnswering
from transformers.models.vilt.modeling_vilt import ViltLayer

from pocket.encoder_losses import HIDDEN, EncoderTrainingModel, attend
from pocket.vilt import IMAGE_SIZE, PATCH, pixel_values

PATCH_LAYER = 3
GUIDED_LAYER = 4


class ViltTrainingModel(EncoderTrainingModel):
    """A stock ViLT that reads several questions about one picture at a time.

    Each question sees itself and the picture. With one question per picture the picture sees the question, as in
    ViLT; with several it sees only itself.

    Parameters
    ----------
    model
        The model to train.
    """

    def __init__(self, model: ViltForQuestionAnswering) -> None:
        super().__init__(model, model.config.hidden_size)

    def answers(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the model; see `EncoderTrainingModel.answers`."""
        vilt = self.model.vilt
        text = self._text(batch["input_ids"])
        image = self._image(batch["images"], batch["corner"])
        mask = self._mask(batch["attention_mask"], image.shape[1])
        _, questions, length = batch["input_ids"].shape
        states = torch.cat([text.flatten(1, 2), image], dim=1)
        starts = torch.arange(questions, device=states.device) * length
        seen = states.new_zeros(())
        patches = states
        for number, layer in enumerate(vilt.encoder.layer):
            states, weights = self._layer(layer, states, mask, starts if number == GUIDED_LAYER else None)
            if number == PATCH_LAYER:
                patches = states[:, questions * length + 1 :]
            if weights is not None:
                seen = weights[..., questions * length + 1 :]
        pooled = vilt.pooler.activation(vilt.pooler.dense(vilt.layernorm(states[:, starts])))
        return self.model.classifier(pooled), patches, seen

    def _text(self, ids: torch.Tensor) -> torch.Tensor:
        embeddings = self.model.vilt.embeddings
        text = embeddings.text_embeddings(input_ids=ids.flatten(0, 1))
        return (text + embeddings.token_type_embeddings.weight[0]).unflatten(0, ids.shape[:2])

    def _image(self, images: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
        embeddings = self.model.vilt.embeddings
        states = embeddings.patch_embeddings(pixel_values(images))
        side = states.shape[-1]
        grid = IMAGE_SIZE // PATCH
        positions = embeddings.position_embeddings[0, 1:].unflatten(0, (grid, grid))
        top, left = corner.tolist()
        window = positions[top : top + side, left : left + side].flatten(0, 1)
        states = states.flatten(2).transpose(1, 2) + window
        cls = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(len(images), -1, -1)
        return torch.cat([cls.to(states.dtype), states], dim=1) + embeddings.token_type_embeddings.weight[1]

    def _mask(self, attention_mask: torch.Tensor, image: int) -> torch.Tensor:
        rows, questions, length = attention_mask.shape
        block = torch.arange(questions, device=attention_mask.device).repeat_interleave(length)
        text = questions * length
        allowed = torch.ones(rows, text + image, text + image, dtype=torch.bool, device=block.device)
        allowed[:, :text, :text] = block[:, None] == block
        if questions > 1:
            allowed[:, text:, :text] = False
        allowed[:, :, :text] &= attention_mask.flatten(1)[:, None]
        return torch.where(allowed, 0.0, HIDDEN)[:, None]

    def _layer(
        self, layer: ViltLayer, states: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention = layer.attention.attention
        normed = layer.layernorm_before(states)
        heads = (len(states), -1, attention.num_attention_heads, attention.attention_head_size)
        query, key, value = (
            part(normed).view(heads).transpose(1, 2) for part in (attention.query, attention.key, attention.value)
        )
        context, weights = attend(query, key, value, mask, rows)
        states = states + layer.attention.output.dense(context)
        inner = F.gelu(layer.intermediate.dense(layer.layernorm_after(states)))
        return states + layer.output.dense(inner), weights
