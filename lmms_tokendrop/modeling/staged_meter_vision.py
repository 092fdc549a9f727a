"""METER's CLIP tower in which patches may merge inside blocks (ToMe, arXiv 2210.09461)."""

import torch
from torch import nn
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer

from .eager_parts import part_by_part
from .fusion_attention import attend
from .fusion_reduction_config import FusionReductionConfig
from .fusion_run import SequenceRun
from .fusion_stages import FusionReducer
from .fusion_tokens import FusionTokens
from .meter_vision import MeterVisionModel


class StagedCLIPAttention(CLIPAttention):
    """CLIP's attention through sdpa or eager, which also gives its keys."""

    def forward(self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None):
        """States `[batch, length, channels]`, queries and keys `[batch, heads, length, head_dim]`, of biased logits."""
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        context, _ = attend(query, key, value, bias, dropout, self.config._attn_implementation == "sdpa")
        return self.out_proj(context), query, key


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
            From the states behind the attention's residual connection, queries and keys to what is left.

        Returns
        -------
        tuple
            States, and what `decide` said of the tokens that stayed or None.
        """
        attended, query, key = self.self_attn(self.layer_norm1(hidden_states), bias)
        hidden_states, kept = hidden_states + attended, None
        if decide is not None:
            kept, hidden_states = decide(hidden_states, query, key)
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
        if not reducer.stages():
            states = self(pixel_values)
            return states, FusionTokens.of_image(states), [states.shape[1]] * len(self.layers)
        hidden_states = self.embed(pixel_values)
        hidden_states, run = self.run_blocks(hidden_states, FusionTokens.of_image(hidden_states), reducer)
        lengths = [tokens.valid.shape[1] for tokens in run.report.received]
        return self.post_layernorm(hidden_states), run.tokens, lengths

    @part_by_part
    def run_blocks(
        self, hidden_states: torch.Tensor, tokens: FusionTokens, reducer: FusionReducer
    ) -> tuple[torch.Tensor, SequenceRun]:
        """States behind the last block, and what happened on the way."""
        run = SequenceRun.start(reducer, tokens, torch.zeros(len(hidden_states), dtype=torch.long), self.training)
        for number, layer in enumerate(self.layers):
            hidden_states, bias, decide, _ = run.before_block(number, hidden_states)
            hidden_states, kept = layer(hidden_states, bias, decide)
            run.after_block(kept)
        return hidden_states, run


def vision_reducer(merged: int | None, config) -> FusionReducer:
    """ToMe for the tower: `merged` patches in each of its blocks; None: the unreduced tower."""
    options = {"method": "none"} if merged is None else {"method": "tome", "r": merged}
    return FusionReductionConfig.from_dict(options).build(config)
