"""The blocks of a CLIP vision tower with stages: patches may leave or merge inside blocks and between them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from ..ops.eager_parts import compiling, of_any_length, on_host, part_by_part
from .attention import attend, cls_attention, heads_of
from .fusion_run import Carry, FusionRun, providers_of
from .fusion_selection import FusionCounts
from .fusion_tokens import FusionTokens
from .reducer import Stage, TokenReducer

CLS_ROW = -1


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
        if config.hidden_act == "quick_gelu":
            self.mlp.activation_fn = InPlaceQuickGELU()

    def projections(self, hidden_states: torch.Tensor) -> tuple:
        """Queries and keys, `[batch, heads, length, head_dim]` each, that the block makes of what goes into it."""
        own, normed = self.self_attn, self.layer_norm1(hidden_states)
        return tuple(heads_of(normed, own.num_heads, own.q_proj, own.k_proj))

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
        own, normed = self.self_attn, self.layer_norm1(hidden_states)
        query, key, value = heads_of(normed, own.num_heads, own.q_proj, own.k_proj, own.v_proj)
        context, _ = attend(own, query, key, value, bias)
        hidden_states, kept = hidden_states + own.out_proj(context), None
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
        Hidden states to collect, 0 being `states`.
    compiled : bool
        Whether blocks are compiled.
    reducer : TokenReducer
        The method.
    **providers : Callable
        Of every stage.

    Attributes
    ----------
    collected : dict[int, torch.Tensor]
        `[batch, what is left, channels]` of each wanted layer, and as `CLS_ROW`, if the method needs it, `[batch, what
        is left, 1]` float32, head-mean attention of the CLS query in the last block, 0 for CLS itself. All go through
        every later decision.
    """

    place = "vision"
    side = "left"

    @on_host
    def __init__(self, tower, blocks, states, wanted: list[int], compiled: bool, reducer: TokenReducer, **providers):
        seeds = torch.zeros(len(states), dtype=torch.long)
        super().__init__(reducer, FusionTokens.of_image(states), seeds, tower.training, **providers)
        self.config, self.blocks, self.wanted, self.compiled = tower.config, blocks, wanted, compiled
        self.own_blocks = any(point == "before_ffn" for _, point in self.stages)
        self.collected = {0: states}
        self.masked = self.tokens

    def counts(self, tokens: FusionTokens) -> FusionCounts:
        """With the tiles where the model has some, a budget's too."""
        known = super().counts(tokens)
        return self.providers["tiles"]().counts(known) if "tiles" in self.providers else known

    @on_host
    def before_block(self, number: int, hidden_states: torch.Tensor) -> dict[str, Any]:
        """Arguments of a block beside its states."""
        self.report.received.append(self.tokens)
        if self.tokens is not self.masked:
            self._mask(hidden_states)
        if "cls_attention" in self.reducer.needs and number == len(self.blocks) - 1:
            found = cls_attention(self.blocks[number], hidden_states, self.tokens.valid)
            self.collected[CLS_ROW] = nn.functional.pad(found, (1, 0)).unsqueeze(-1)
        if not self.own_blocks:
            return {"attention_mask": self.mask}
        return {"bias": self.mask, "decide": self.decision(number, self.tokens, self.mask)}

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
        self.collected = {layer: states for layer, states in self.collected.items() if layer in (CLS_ROW, *self.wanted)}
        self.collected[number + 1] = hidden_states
        return hidden_states

    def _attention_of(self, number: int, hidden_states: torch.Tensor) -> dict[str, Callable]:
        """Providers of the stage behind a block, which is known by what went into it and what it gave.

        `projections` gives queries and keys of its heads, or, with `ahead=1`, of those of the next block, if all stays.
        """
        entered, bias = self.collected[number], self.bias(self.tokens, hidden_states.dtype)

        @cache
        def projections(ahead: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
            return self.blocks[number + ahead].projections(hidden_states if ahead else entered)

        return {"projections": projections, **providers_of(projections, bias)}

    def leave(self, stage: Stage, tokens: FusionTokens, carry: Carry, *states: torch.Tensor, **providers) -> tuple:
        """Tokens and carry after a stage, and the states; what was collected goes through it too."""
        earlier = {number: states for number, states in self.collected.items() if number <= stage.layer}
        kept, *left = super().leave(stage, tokens, carry, *earlier.values(), *states, **providers)
        self.collected, self.masked = dict(zip(earlier, left, strict=False)), None
        return kept, left[-1]

    def _mask(self, hidden_states: torch.Tensor) -> None:
        """What is not attended: always a tensor for compiled stock blocks, of any length."""
        valid, self.masked = self.tokens.valid, self.tokens
        if self.own_blocks:
            self.mask = self.bias(self.tokens, hidden_states.dtype)
        else:
            self.mask = create_bidirectional_mask(
                self.config, hidden_states, valid, allow_is_bidirectional_skip=not self.compiled
            )
        if self.compiled:
            of_any_length(1, hidden_states)
            of_any_length(2, None if self.own_blocks else self.mask)
            of_any_length(3, self.mask)


@part_by_part
def run_blocks(tower, blocks, states: torch.Tensor, wanted: list[int], reducer: TokenReducer, **providers) -> TowerRun:
    """Run the blocks, without the last one if nothing that is wanted needs it; arguments are those of the run."""
    run = TowerRun(tower, blocks, states, wanted, compiling(), reducer, **providers)
    for number, block in enumerate(blocks):
        arguments = run.before_block(number, states)
        if number == len(blocks) - 1 and len(blocks) not in wanted:
            break
        states = run.after_block(number, block(states, **arguments))
    return run
