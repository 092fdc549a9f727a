"""METER's parts: its vision tower, and the layers in which text and image attend to each other."""

from typing import ClassVar

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPPreTrainedModel, CLIPVisionEmbeddings
from transformers.models.roberta.modeling_roberta import RobertaAttention, RobertaIntermediate, RobertaOutput

from ..core.attention import attend_to


class MeterCrossLayer(GradientCheckpointingLayer):
    """Self-attention, attention to the other modality, and a feed-forward network, each with a norm behind it.

    The form and the parameter names of BridgeTower's layer.
    """

    def __init__(self, config):
        super().__init__()
        self.attention, self.crossattention = (RobertaAttention(config, is_cross_attention=True) for _ in range(2))
        self.intermediate = RobertaIntermediate(config)
        self.output = RobertaOutput(config)

    def forward(
        self, states, other, keys=(None, None), other_keys=(None, None), attentions=False, itself=None, decide=None
    ) -> tuple:
        """Attend to the own sequence, then to the other one, and run the feed-forward network.

        Parameters
        ----------
        states, other : torch.Tensor
            Both sequences, `[batch, length, channels]`.
        keys, other_keys : tuple[torch.Tensor or None, torch.Tensor or None]
            Bias and policy of the keys of each, as :func:`.attention.attend_to` takes them.
        attentions : bool
            Whether to return probabilities.
        itself : torch.BoolTensor or None
            `[batch, length, keys]`, keys of the other sequence that count in full.
        decide : Callable or None
            Before the feed-forward network, from the states of both sequences, the queries and keys of the attention
            to the other one and the keys of the own, to what is known of the tokens that stay, and both states.

        Returns
        -------
        tuple
            States; probabilities of both attentions `[batch, heads, length, keys]`, if asked for; the other sequence,
            and what `decide` said of the tokens that stayed or None.
        """
        own, cross, kept = self.attention, self.crossattention, None
        context, to_own, _, own_key = attend_to(own.self, states, states, keys, attentions)
        states = own.output(context, states)
        context, to_other, query, other_key = attend_to(cross.self, states, other, other_keys, attentions, itself)
        states = cross.output(context, states)
        if decide is not None:
            kept, states, other = decide(states, other, query, other_key, own_key)
        return self.feed_forward(states), to_own, to_other, other, kept

    def feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Run the feed-forward network."""
        return self.output(self.intermediate(hidden_states), hidden_states)


class MeterVisionModel(CLIPPreTrainedModel):
    """CLIP's vision tower, with its last norm on every token and without projection.

    Parameters
    ----------
    config : CLIPVisionConfig
        Its configuration; METER's tower has 11 blocks.
    """

    config: CLIPVisionConfig
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
