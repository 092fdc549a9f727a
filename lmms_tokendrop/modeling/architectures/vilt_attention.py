"""ViLT's attention through sdpa or eager, with keys and queries."""

import torch
from torch import nn
from transformers.models.vilt.modeling_vilt import ViltAttention, ViltSelfAttention, ViltSelfOutput

from ..core.fusion_attention import attend, diagonal


class StagedViltSelfAttention(ViltSelfAttention):
    """ViLT's self-attention through sdpa or eager, which also hands out its queries and keys."""

    def __init__(self, config):
        super().__init__(config)
        self.config = config

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        policy: torch.Tensor | None = None,
    ):
        """Attend.

        Parameters
        ----------
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        attention_mask : torch.Tensor or None
            Additive, `[batch, 1, 1, length]`.
        output_attentions : bool
            Whether to return probabilities.
        policy : torch.Tensor or None
            `[batch, length]`, 1 for tokens that are there and 0 for those that left, with gradients.

        Returns
        -------
        tuple
            Context `[batch, length, channels]`, probabilities `[batch, heads, length, length]` or None, and queries and
            keys `[batch, heads, length, head_dim]`.
        """
        batch, length, _ = hidden_states.shape
        query, key, value = (
            layer(hidden_states).view(batch, length, -1, self.attention_head_size).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout.p if self.training else 0.0
        sdpa = self.config._attn_implementation == "sdpa" and not output_attentions
        itself = None if policy is None else diagonal(length, query.device)
        context, probabilities = attend(query, key, value, attention_mask, dropout, sdpa, policy, itself)
        return context, probabilities, query, key


class StagedViltAttention(ViltAttention):
    """ViLT's attention block around :class:`StagedViltSelfAttention`."""

    def __init__(self, config):
        nn.Module.__init__(self)
        self.attention = StagedViltSelfAttention(config)
        self.output = ViltSelfOutput(config)

    def forward(self, hidden_states, attention_mask=None, output_attentions=False, policy=None):
        """Attend and project; see :meth:`StagedViltSelfAttention.forward`."""
        context, *others = self.attention(hidden_states, attention_mask, output_attentions, policy)
        return self.output(context, hidden_states), *others
