"""METER's vision tower."""

from typing import ClassVar

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPPreTrainedModel, CLIPVisionEmbeddings


class MeterVisionModel(CLIPPreTrainedModel):
    """CLIP's vision tower, with its last norm on every token and without projection.

    Parameters
    ----------
    config : CLIPVisionConfig
        Its configuration; METER's tower has 11 blocks.
    """

    config: CLIPVisionConfig
    config_class = CLIPVisionConfig
    main_input_name = "pixel_values"
    layer_class: ClassVar[type] = CLIPEncoderLayer

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList([self.layer_class(config) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patches with CLS first, with positions interpolated (bicubic) to the image's grid.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`, sides multiples of the patch size.

        Returns
        -------
        torch.Tensor
            `[batch, 1 + patches, channels]`.

        Raises
        ------
        ValueError
            If a side is not a multiple of the patch size.
        """
        height, width = pixel_values.shape[-2:]
        if height % self.config.patch_size or width % self.config.patch_size:
            raise ValueError(
                f"pixel_values: images of {height}x{width} pixels; their sides must be multiples of the patch size, "
                f"{self.config.patch_size}"
            )
        return self.pre_layernorm(self.embeddings(pixel_values, interpolate_pos_encoding=True))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """States `[batch, 1 + patches, channels]` of images `[batch, 3, height, width]`, CLS first."""
        hidden_states = self.embed(pixel_values)
        for layer in self.layers:
            hidden_states = layer(hidden_states, None)
        return self.post_layernorm(hidden_states)
