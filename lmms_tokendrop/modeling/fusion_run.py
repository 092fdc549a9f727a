"""One forward pass through an encoder of text and image with stages."""

from dataclasses import dataclass
from functools import cache

import torch

from .eager_parts import on_host
from .fusion_attention import attention_rows, key_bias
from .fusion_stages import FusionReducer, StageRunner
from .fusion_tokens import FusionReport, FusionTokens
from .stages import Stage


class FusionRun:
    """What is known of a sequence on its way through the layers. One subclass per encoder.

    Parameters
    ----------
    reducer : FusionReducer
        The method.
    tokens : FusionTokens
        What goes in.
    sample_seeds : torch.LongTensor
        `[batch]`.
    training : bool
        Whether methods with a soft form in training use it.

    Attributes
    ----------
    tokens : FusionTokens
        What goes into the next layer.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, what the last stage handed on.
    policy : torch.Tensor or None
        `[batch, length]`, which tokens are there, where training keeps them all.
    report : FusionReport
        What happened to the tokens.
    """

    def __init__(self, reducer: FusionReducer, tokens: FusionTokens, sample_seeds: torch.Tensor, training: bool):
        self.reducer, self.report = reducer, FusionReport()
        self.stages = {(stage.layer, stage.point): stage for stage in reducer.stages()}
        self.soft = training and reducer.soft_training
        self.policy = tokens.valid.float() if self.soft else None
        self.carry: dict[str, torch.Tensor] = {}
        if reducer.counts_padding:
            self.carry, tokens = {"key_weight": tokens.valid.float()}, tokens.with_padding()
        self.tokens = tokens
        self.act = StageRunner(reducer, tokens.counts(), sample_seeds)

    @classmethod
    @on_host
    def start(cls, *inputs):
        """Build it, outside of graphs."""
        return cls(*inputs)

    @property
    def key_weight(self) -> torch.Tensor | None:
        """`[batch, length]`, how much each token counts as a key; None: all the same."""
        return self.carry.get("key_weight", self.policy)

    def stage_before_block(self, number: int, hidden_states: torch.Tensor) -> torch.Tensor:
        """States after the stage before a block if there is one; in soft training it weighs tokens instead."""
        stage = self.stages.get((number, "before_block"))
        if stage is not None and self.soft:
            self.policy = self.reducer.soft_policy(stage, hidden_states, self.tokens, self.policy)
            self.report.policies.append(self.policy)
        elif stage is not None:
            (self.tokens, self.carry), hidden_states = self.act(stage, self.tokens, self.carry, hidden_states)
        return hidden_states


class SequenceRun(FusionRun):
    """One pass through blocks that read text and image as one sequence."""

    mask: torch.Tensor | None = None
    masked: FusionTokens | None = None

    @on_host
    def before_block(self, number: int, hidden_states: torch.Tensor):
        """States after the stage before a block, their mask, what decides inside it, and how much keys count."""
        hidden_states = self.stage_before_block(number, hidden_states)
        if self.tokens is not self.masked:
            size = self.tokens.size if self.reducer.proportional_attention else None
            self.mask, self.masked = key_bias(self.tokens.valid, hidden_states.dtype, size), self.tokens
        stage = self.stages.get((number, "before_ffn"))
        self.report.received.append(self.tokens)
        decide = None if stage is None else BlockDecision(self.act, stage, self.carry, self.tokens, self.mask)
        return hidden_states, self.mask, decide, self.key_weight

    @on_host
    def after_block(self, kept: tuple[FusionTokens, dict[str, torch.Tensor]] | None) -> None:
        """Note what a block left; None: everything."""
        if kept is not None:
            self.tokens, self.carry = kept
        self.report.left.append(self.tokens)


@dataclass(frozen=True)
class LayerDecision:
    """What a runner says at a stage inside a layer. One subclass per encoder.

    Attributes
    ----------
    act : StageRunner
        The runner.
    stage : Stage
        The stage.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each.
    """

    act: StageRunner
    stage: Stage
    carry: dict[str, torch.Tensor]


@dataclass(frozen=True)
class BlockDecision(LayerDecision):
    """The decision inside a block of one sequence.

    Attributes
    ----------
    tokens : FusionTokens
        `[batch, length]`, what the block received.
    mask : torch.Tensor or None
        Additive, `[batch, 1, 1, length]`.
    """

    tokens: FusionTokens
    mask: torch.Tensor | None

    @on_host
    def __call__(self, hidden_states: torch.Tensor, query: torch.Tensor, key: torch.Tensor):
        """Decide.

        Parameters
        ----------
        hidden_states : torch.Tensor
            `[batch, length, channels]`, behind the residual connection of the attention.
        query, key : torch.Tensor
            `[batch, heads, length, head_dim]`.

        Returns
        -------
        tuple
            Tokens and carry that are left, and their states.
        """
        return self.act(
            self.stage,
            self.tokens,
            self.carry,
            hidden_states,
            keys=cache(lambda: key.mean(1)),
            queries=cache(lambda: query.mean(1)),
            attention_rows=lambda rows: attention_rows(query, key, self.mask, rows, self.carry.get("key_weight")),
        )
