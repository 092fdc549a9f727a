"""The blocks of a CLIP vision tower with stages: patches may leave or merge inside blocks and between them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer

from ..ops.eager_parts import compiling, of_any_length, on_host, part_by_part
from .applying import Rules
from .attention import attend, cls_attention, fusion_attention_rows, heads_of, key_bias
from .fusion_run import Carry, FusionRun
from .fusion_selection import FusionCounts
from .fusion_tokens import FusionTokens
from .reducer import Stage, TokenReducer


class StagedCLIPAttention(CLIPAttention):
    """CLIP's attention, which can also give its queries and keys."""

    def attend(self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None):
        """States `[batch, length, channels]`, queries and keys `[batch, heads, length, head_dim]`, of biased logits."""
        query, key, value = heads_of(hidden_states, self.num_heads, self.q_proj, self.k_proj, self.v_proj)
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
    """A block of CLIP in which tokens may merge between its attention and its MLP; else the stock one."""

    def __init__(self, config):
        super().__init__(config)
        self.self_attn = StagedCLIPAttention(config)
        if config.hidden_act == "quick_gelu":
            self.mlp.activation_fn = InPlaceQuickGELU()

    def projections(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys, `[batch, heads, length, head_dim]` each, that the block makes of what goes into it."""
        attention = self.self_attn
        normed = self.layer_norm1(hidden_states)
        query, key = heads_of(normed, attention.num_heads, attention.q_proj, attention.k_proj)
        return query, key

    def forward(self, hidden_states: torch.Tensor, attention_mask=None, bias=None, decide=None, **kwargs):
        """Run the block; without `bias` and `decide` as the stock one does.

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
        torch.Tensor or tuple
            States; with `bias` or `decide` a pair of them and what `decide` said of the tokens that stayed or None.
        """
        if bias is None and decide is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attended, query, key = self.self_attn.attend(self.layer_norm1(hidden_states), bias)
        hidden_states, kept = hidden_states + attended, None
        if decide is not None:
            kept, hidden_states = decide(hidden_states, query, key)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states)), kept


class TowerRun(FusionRun):
    """One pass of images through the blocks of a tower, CLS first.

    Parameters
    ----------
    tower : nn.Module
        The tower, for its configuration.
    blocks : Sequence[StagedCLIPLayer]
        Its blocks.
    states : torch.Tensor
        `[batch, 1 + patches, channels]`, what goes into the first block.
    wanted : list[int]
        Hidden states to collect, 0 being `states`. They go through every later decision.
    attentive : bool
        Whether the attention of the CLS query in the last block is wanted.
    reducer : TokenReducer
        The method.
    **providers : Callable
        Of every stage.

    Attributes
    ----------
    collected : dict[int, torch.Tensor]
        `[batch, what is left, channels]` of each wanted layer.
    attention : torch.Tensor or None
        `[batch, what is left, 1]` float32, head-mean attention of the CLS query, 0 for CLS itself.
    entered : torch.Tensor
        What went into the block that runs.
    mask, bias : torch.Tensor or None
        What stock blocks read, and what is added to the logits of keys in the others.
    """

    place = "vision"

    def __init__(self, tower, blocks, states, wanted: list[int], attentive: bool, reducer: TokenReducer, **providers):
        seeds = torch.zeros(len(states), dtype=torch.long)
        super().__init__(reducer, FusionTokens.of_image(states), seeds, tower.training, **providers)
        self.config, self.blocks, self.wanted, self.attentive = tower.config, blocks, wanted, attentive
        self.own_blocks = any(point == "before_ffn" for _, point in self.stages)
        self.compiled = False
        self.collected = {0: states}
        self.attention: torch.Tensor | None = None
        self.mask: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.attended: FusionTokens | None = self.tokens
        self.entered = states

    def rules(self) -> Rules:
        """CLS stays first."""
        return Rules("left", leading=1, adds=self.reducer.adds)

    def counts(self, tokens: FusionTokens) -> FusionCounts:
        """With the tiles where the model has some, a budget's too."""
        known = super().counts(tokens)
        return self.providers["tiles"]().counts(known) if "tiles" in self.providers else known

    @on_host
    def before_block(self, number: int, hidden_states: torch.Tensor) -> dict[str, Any]:
        """Arguments of a block beside its states."""
        self.report.received.append(self.tokens)
        self.entered = hidden_states
        if self.tokens is not self.attended:
            self._mask(hidden_states)
        if self.attentive and number == len(self.blocks) - 1:
            valid = self.tokens.valid
            found = cls_attention(self.blocks[number], hidden_states, None if bool(valid.all()) else valid)
            self.attention = nn.functional.pad(found, (1, 0)).unsqueeze(-1)
        if not self.own_blocks:
            return {"attention_mask": self.mask}
        return {"bias": self.bias, "decide": self.decision(number, self.tokens, self.bias)}

    @on_host
    def after_block(self, number: int, outputs) -> torch.Tensor:
        """States after a block and its stages."""
        hidden_states, kept = outputs if isinstance(outputs, tuple) else (outputs, None)
        if kept is not None:
            self.tokens, self.carry = kept
        stage = self.stages.get((number, "after_block"))
        if stage is not None:
            providers = self._attention_of(number, hidden_states)
            kept, hidden_states = self.leave(stage, self.tokens, self.carry, hidden_states, **providers)
            self.tokens, self.carry = kept
        self.collected = {layer: states for layer, states in self.collected.items() if layer in self.wanted}
        self.collected[number + 1] = hidden_states
        return hidden_states

    def _attention_of(self, number: int, hidden_states: torch.Tensor) -> dict[str, Callable]:
        """Providers of the stage behind a block, which is known by what went into it and what it gave.

        `projections` gives queries and keys of its heads, or, with `ahead=1`, of those of the next block, if all stays.
        """
        entered, tokens = self.entered, self.tokens
        size = tokens.size if self.place in self.reducer.proportional_attention else None
        bias = key_bias(tokens.valid, hidden_states.dtype, size)

        @cache
        def projections(ahead: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
            return self.blocks[number + ahead].projections(hidden_states if ahead else entered)

        return {
            "projections": projections,
            "keys": lambda: projections()[1].mean(1),
            "queries": lambda: projections()[0].mean(1),
            "attention_rows": lambda rows: fusion_attention_rows(*projections(), bias, rows),
        }

    def leave(self, stage: Stage, tokens: FusionTokens, carry: Carry, hidden_states: torch.Tensor, **providers):
        """Tokens and carry after a stage, and the states; what was collected goes through it too."""
        earlier = {number: states for number, states in self.collected.items() if number <= stage.layer}
        held = [*earlier.values(), *([] if self.attention is None else [self.attention]), hidden_states]
        kept, left = self.act(stage, tokens, carry, held, **providers)
        self.collected, self.attended = dict(zip(earlier, left, strict=False)), None
        if self.attention is not None:
            self.attention = left[-2]
        return kept, left[-1]

    def _mask(self, hidden_states: torch.Tensor) -> None:
        """What is not attended: always a tensor for compiled stock blocks, of any length."""
        valid, self.attended = self.tokens.valid, self.tokens
        if self.own_blocks:
            size = self.tokens.size if self.place in self.reducer.proportional_attention else None
            self.bias = key_bias(valid, hidden_states.dtype, size)
        elif self.compiled or not bool(valid.all()):
            self.mask = create_bidirectional_mask(
                self.config, hidden_states, valid, allow_is_bidirectional_skip=not self.compiled
            )
        if self.compiled:
            of_any_length(1, hidden_states)
            for mask in (self.mask, self.bias):
                if mask is not None:
                    of_any_length(3, mask)
            if self.mask is not None:
                of_any_length(2, self.mask)


@part_by_part
def run_blocks(run: TowerRun, hidden_states: torch.Tensor) -> torch.Tensor:
    """States behind the last block, or behind the one before if nothing else is wanted."""
    depth, run.compiled = len(run.blocks), compiling()
    for number, block in enumerate(run.blocks):
        arguments = run.before_block(number, hidden_states)
        if number == depth - 1 and depth not in run.wanted:
            break
        hidden_states = run.after_block(number, block(hidden_states, **arguments))
    return hidden_states
