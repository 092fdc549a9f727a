"""METER's CLIP tower in which patches may merge inside blocks (ToMe, arXiv 2210.09461)."""

from functools import cache, partial

import torch
from torch import nn
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer

from .fusion_attention import attend, key_bias
from .fusion_reduction_config import FusionReductionConfig
from .fusion_stages import FusionReducer, StageRunner
from .fusion_tokens import FusionTokens
from .meter_vision import MeterVisionModel


class StagedCLIPAttention(CLIPAttention):
    """CLIP's attention through sdpa or eager, which also gives its keys."""

    def forward(self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None):
        """States `[batch, length, channels]` and keys `[batch, heads, length, head_dim]`; `bias` is added to logits."""
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        context, _ = attend(query, key, value, bias, dropout, self.config._attn_implementation == "sdpa")
        return self.out_proj(context), key


class InPlaceQuickGELU(nn.Module):
    """CLIP's activation, which without gradients overwrites its input instead of making two more tensors."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`x * sigmoid(1.702 * x)`."""
        if torch.is_grad_enabled():
            return hidden_states * torch.sigmoid(1.702 * hidden_states)
        return hidden_states.mul_((1.702 * hidden_states).sigmoid_())


class StagedCLIPLayer(CLIPEncoderLayer):
    """A block of CLIP in which tokens may merge between its attention and its MLP."""

    def __init__(self, config):
        super().__init__(config)
        self.self_attn = StagedCLIPAttention(config)
        if config.hidden_act == "quick_gelu":
            self.mlp.activation_fn = InPlaceQuickGELU()

    def forward(self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None, decide=None):
        """Run the block.

        Parameters
        ----------
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        bias : torch.Tensor or None
            Added to the logits of keys, `[batch, 1, 1, length]`.
        decide : Callable or None
            From the states behind the attention's residual connection, and the keys, to what is left.

        Returns
        -------
        tuple
            States, and what `decide` said of the tokens that stayed or None.
        """
        attended, key = self.self_attn(self.layer_norm1(hidden_states), bias)
        hidden_states, kept = hidden_states + attended, None
        if decide is not None:
            kept, hidden_states = decide(hidden_states, key)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states)), kept


class StagedMeterVisionModel(MeterVisionModel):
    """METER's vision tower with the stages of a reducer."""

    layer_class = StagedCLIPLayer

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """States of images with every token."""
        hidden_states = self.embed(pixel_values)
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states)
        return self.post_layernorm(hidden_states)

    def forward_staged(
        self, pixel_values: torch.Tensor, reducer: FusionReducer
    ) -> tuple[torch.Tensor, FusionTokens, list[int]]:
        """Encode images.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`.
        reducer : FusionReducer
            The method, for a sequence without text.

        Returns
        -------
        tuple[torch.Tensor, FusionTokens, list[int]]
            States `[batch, what is left, channels]`, CLS first, what they are, and the number of tokens that the
            attention of each block processed.
        """
        hidden_states = self.embed(pixel_values)
        valid = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        tokens, lengths = FusionTokens.start(valid[:, :0], valid), []
        stages = {stage.layer: stage for stage in reducer.stages()}
        act = StageRunner(reducer, tokens.counts(), torch.zeros(len(valid), dtype=torch.long))
        bias = None
        for number, layer in enumerate(self.layers):
            decide = partial(merge_in_layer, act, stages[number], tokens) if number in stages else None
            lengths.append(hidden_states.shape[1])
            hidden_states, kept = layer(hidden_states, bias, decide)
            if kept is not None:
                tokens, bias = kept, key_bias(kept.valid, hidden_states.dtype, kept.size)
        return self.post_layernorm(hidden_states), tokens, lengths


def merge_in_layer(
    act: StageRunner, stage, tokens: FusionTokens, hidden_states: torch.Tensor, key: torch.Tensor
) -> tuple[FusionTokens, torch.Tensor]:
    """Tokens that are left, and their states."""
    (tokens, _), hidden_states = act(stage, tokens, {}, hidden_states, keys=cache(lambda: key.mean(1)))
    return tokens, hidden_states


def vision_reducer(merged: int | None, config) -> FusionReducer:
    """ToMe for the tower: `merged` patches in each of its blocks; None: the unreduced tower."""
    options = {"method": "none"} if merged is None else {"method": "tome", "r": merged}
    return FusionReductionConfig.from_dict(options).build(config)
