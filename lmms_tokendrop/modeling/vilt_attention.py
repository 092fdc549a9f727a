"""ViLT's attention through sdpa or eager, with keys, queries, and the attention rows of a few queries."""

import math

import torch
from torch import nn
from transformers.models.vilt.modeling_vilt import ViltAttention, ViltSelfAttention, ViltSelfOutput

from .fusion_tokens import FusionTokens
from .token_ops import right_padded_indices

POLICY_EPS = 1e-6


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
        probabilities = None
        if self.config._attn_implementation == "sdpa" and not output_attentions and policy is None:
            context = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=attention_mask, dropout_p=dropout
            )
        else:
            logits = query @ key.transpose(-1, -2) / math.sqrt(self.attention_head_size)
            if attention_mask is not None:
                logits = logits + attention_mask
            probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy)
            probabilities = nn.functional.dropout(probabilities, dropout)
            context = probabilities @ value
        context = context.transpose(1, 2).reshape(batch, length, self.all_head_size)
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


def policy_softmax(logits: torch.Tensor, policy: torch.Tensor, queries: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax in which keys count as much as a policy says (DynamicViT, training). Every query sees itself.

    Parameters
    ----------
    logits : torch.Tensor
        `[batch, heads, queries, length]`.
    policy : torch.Tensor
        `[batch, length]`, from 0 to 1; gradients flow into it.
    queries : torch.LongTensor or None
        `[batch, queries]`, the tokens that ask; None: all.

    Returns
    -------
    torch.Tensor
        Probabilities in the shape and dtype of `logits`.
    """
    length = logits.shape[-1]
    keys = torch.arange(length, device=logits.device)
    itself = (keys.unsqueeze(-1) == keys)[None] if queries is None else queries.unsqueeze(-1) == keys
    weight = policy.float()[:, None, None, :]
    weight = weight + (1 - weight) * itself.unsqueeze(1)
    scaled = (logits.float() - logits.float().amax(-1, keepdim=True).detach()).exp() * weight
    return ((scaled + POLICY_EPS / length) / (scaled.sum(-1, keepdim=True) + POLICY_EPS)).to(logits.dtype)


def attention_bias(tokens: FusionTokens, dtype: torch.dtype, proportional: bool) -> torch.Tensor | None:
    """Additive mask `[batch, 1, 1, length]`: lowest for padding, else 0 or the logarithm of the token's size.

    None where it would be zero.
    """
    sized = proportional and bool((tokens.size > 1).any())
    if not sized and bool(tokens.valid.all()):
        return None
    bias = tokens.size.clamp_min(1).log().to(dtype) if sized else torch.zeros_like(tokens.size, dtype=dtype)
    return bias.masked_fill(~tokens.valid, torch.finfo(dtype).min)[:, None, None]


def attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    rows: torch.Tensor,
    policy: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of some queries, without the others.

    Parameters
    ----------
    query, key : torch.Tensor
        `[batch, heads, length, head_dim]`.
    mask : torch.Tensor or None
        Additive, `[batch, 1, 1, length]`.
    rows : torch.BoolTensor
        `[batch, length]`, the queries.
    policy : torch.Tensor or None
        `[batch, length]`, how much each token counts as a key; see :func:`policy_softmax`.

    Returns
    -------
    torch.Tensor
        `[batch, heads, queries, length]` float32, zero where a row has fewer queries than the longest.
    """
    index, valid = right_padded_indices(rows)
    chosen = query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    logits = (chosen @ key.transpose(-1, -2)).float() / math.sqrt(query.shape[-1])
    if mask is not None:
        logits = logits + mask.float()
    probabilities = logits.softmax(-1) if policy is None else policy_softmax(logits, policy, index)
    return probabilities.masked_fill(~valid[:, None, :, None], 0.0)
