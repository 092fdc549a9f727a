"""One forward pass through an encoder with stages: of text and image, or of images alone."""

from functools import cache, partial
from typing import Any

import torch

from ..ops.eager_parts import HostCall, on_host
from .applying import apply, check_counted
from .attention import fusion_attention_rows, key_bias
from .fusion_selection import FusionCounts, keep_best_of_image
from .fusion_tokens import FusionReport, FusionTokens
from .reducer import Context, Stage, TokenReducer

Carry = dict[str, torch.Tensor]


class FusionRun:
    """What is known of a sequence on its way through the layers. One subclass per kind of encoder.

    Parameters
    ----------
    reducer : TokenReducer
        The method.
    tokens : FusionTokens
        What goes in.
    sample_seeds : torch.LongTensor
        `[batch]`.
    training : bool
        Whether methods with a soft form in training use it.
    **providers : Callable
        Of every stage.

    Attributes
    ----------
    place, side : str
        Where stages act, and where rows that keep fewer tokens are padded.
    tokens : FusionTokens
        What goes into the next layer.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, what the last stage handed on.
    policy : torch.Tensor or None
        `[batch, length]`, which tokens are there, where training keeps them all.
    report : FusionReport
        What happened to the tokens.
    mask : torch.Tensor or None
        What is added to the logits of keys, or what stock blocks read.
    masked : FusionTokens or None
        The tokens that it was made for.
    """

    place = "fusion"
    side = "right"
    mask: torch.Tensor | None = None
    masked: FusionTokens | None = None

    @on_host
    def __init__(self, reducer: TokenReducer, tokens: FusionTokens, sample_seeds, training: bool, **providers):
        self.reducer, self.report = reducer, FusionReport()
        self.stages = {(stage.layer, stage.point): stage for stage in reducer.stages_at(self.place)}
        self.soft = training and bool(self.stages) and reducer.soft_training
        self.proportional = self.place in reducer.proportional_attention
        self.policy = tokens.valid.float() if self.soft else None
        pads = reducer.counts_padding and self.place == "fusion"
        self.carry: Carry = {"key_weight": tokens.valid.float()} if pads else {}
        self.tokens = tokens.with_padding() if pads else tokens
        self.first, self.sample_seeds, self.providers = self.tokens.counts(), sample_seeds, providers

    def counts(self, tokens: FusionTokens) -> FusionCounts:
        """What counts can be computed from."""
        return FusionCounts(*tokens.counts(), *self.first)

    def bias(self, tokens: FusionTokens, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the logits of tokens as keys; see :func:`key_bias`."""
        return key_bias(tokens.valid, dtype, tokens.size if self.proportional else None)

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
            (self.tokens, self.carry), hidden_states = self.leave(stage, self.tokens, self.carry, hidden_states)
        return hidden_states

    def decision(self, number: int, tokens: Any, bias: torch.Tensor | None) -> HostCall | None:
        """What decides at the stage inside a layer that has received tokens and biases of their logits, if any does."""
        stage = self.stages.get((number, "before_ffn"))
        return None if stage is None else HostCall(self.decide, stage, tokens, self.carry, bias)

    def decide(self, stage: Stage, tokens: FusionTokens, carry: Carry, bias, hidden_states, query, key) -> tuple:
        """Decide inside a layer of one sequence.

        Parameters
        ----------
        stage : Stage
            The stage.
        tokens : FusionTokens
            What the layer received.
        carry : dict[str, torch.Tensor]
            `[batch, length]` each.
        bias : torch.Tensor or None
            Added to the logits of keys, `[batch, 1, 1, keys]`.
        hidden_states : torch.Tensor
            `[batch, length, channels]`, behind the residual connection of the attention.
        query, key : torch.Tensor
            `[batch, heads, length, head_dim]`.

        Returns
        -------
        tuple
            Tokens and carry that are left, and their states.
        """
        providers = providers_of(lambda: (query, key), bias, carry.get("key_weight"))
        return self.leave(stage, tokens, carry, hidden_states, **providers)

    def leave(self, stage: Stage, tokens: FusionTokens, carry: Carry, *states: torch.Tensor, **providers) -> tuple:
        """Do what the reducer says: tokens and carry after a stage, and states, of which the last are the layer's."""
        counts = self.counts(tokens)
        providers = {"best": partial(keep_best_of_image, tokens), **self.providers, **providers}
        context = Context(tokens, tokens.valid, states[-1], counts, tokens.text, self.sample_seeds, carry, providers)
        after, left, carry = apply(tokens, [*states], self.reducer.keep(stage, context), self.reducer, self.side)
        self._check_counts(stage, counts, after)
        return (after, carry), *left

    def _check_counts(self, stage: Stage, counts: FusionCounts, after: FusionTokens) -> None:
        """Fail unless a stage left exactly the counts that its method states."""
        wanted = self.reducer.count(stage, counts)
        if wanted is not None and self.reducer.joint:
            check_counted([(stage.layer, "", torch.add(*wanted), torch.add(*after.counts()))])
        elif wanted is not None:
            kinds = zip(("text ", "image "), wanted, after.counts(), strict=True)
            check_counted([(stage.layer, *counted) for counted in kinds])


def providers_of(projections: Any, bias: torch.Tensor | None, weight: torch.Tensor | None = None) -> dict:
    """What a stage may ask of the queries and keys, `[batch, heads, length, head_dim]` each, that a function gives."""
    return {
        "keys": cache(lambda: projections()[1].mean(1)),
        "queries": cache(lambda: projections()[0].mean(1)),
        "attention_rows": lambda rows: fusion_attention_rows(projections()[0], projections()[1], bias, rows, weight),
    }


class SequenceRun(FusionRun):
    """One pass through blocks that read text and image as one sequence."""

    @on_host
    def before_block(self, number: int, hidden_states: torch.Tensor):
        """States after the stage before a block, their mask, what decides inside it, and how much keys count."""
        hidden_states = self.stage_before_block(number, hidden_states)
        if self.tokens is not self.masked:
            self.mask, self.masked = self.bias(self.tokens, hidden_states.dtype), self.tokens
        self.report.received.append(self.tokens)
        return hidden_states, self.mask, self.decision(number, self.tokens, self.mask), self.key_weight

    @on_host
    def after_block(self, kept: tuple[FusionTokens, Carry] | None) -> None:
        """Note what a block left; None: everything."""
        if kept is not None:
            self.tokens, self.carry = kept
        self.report.left.append(self.tokens)
