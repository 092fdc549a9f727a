"""One forward pass through an encoder with stages: of text and image, or of images alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import torch

from ..ops.eager_parts import on_host
from .applying import Rules, apply, check_counted
from .attention import fusion_attention_rows, key_bias
from .fusion_selection import FusionCounts, keep_best_of_image
from .fusion_tokens import FusionReport, FusionTokens
from .reducer import Context, Stage, TokenReducer

Carry = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StageRunner:
    """Asks a reducer at each stage of one forward pass, and does what it says.

    Attributes
    ----------
    reducer : TokenReducer
        The method.
    first : tuple[torch.Tensor, torch.Tensor]
        Tokens of the text and of the image of the unreduced sequence, `[batch]` each.
    sample_seeds : torch.LongTensor
        `[batch]`.
    rules : Rules
        What a decision may do.
    always : dict[str, Callable]
        Providers of every stage.
    """

    reducer: TokenReducer
    first: tuple[torch.Tensor, torch.Tensor]
    sample_seeds: torch.Tensor
    rules: Rules
    always: dict[str, Callable] = field(default_factory=dict)

    def __call__(
        self, stage: Stage, tokens: FusionTokens, carry: Carry, states: list[torch.Tensor], **providers: Callable
    ) -> tuple[tuple[FusionTokens, Carry], list[torch.Tensor]]:
        """Tokens and carry after a stage, and the states of the tokens, of which the last are the layer's."""
        counts = FusionCounts(*tokens.counts(), *self.first)
        providers = {"best": partial(keep_best_of_image, tokens), **self.always, **providers}
        context = Context(
            tokens, tokens.valid, states[-1], counts, tokens.text, self.sample_seeds, carry, providers=providers
        )
        after, states, carry = apply(tokens, states, self.reducer.keep(stage, context), self.rules)
        self._check_counts(stage, counts, after)
        return (after, carry), states

    def _check_counts(self, stage: Stage, counts: FusionCounts, after: FusionTokens) -> None:
        """Fail unless a stage left exactly the counts that its method states."""
        wanted = self.reducer.count(stage, counts)
        if wanted is None:
            return
        if self.reducer.joint:
            check_counted(stage.layer, "", torch.add(*wanted), torch.add(*after.counts()))
        else:
            for kind, expected, found in zip(("text ", "image "), wanted, after.counts(), strict=True):
                check_counted(stage.layer, kind, expected, found)


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
    tokens : FusionTokens
        What goes into the next layer.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, what the last stage handed on.
    policy : torch.Tensor or None
        `[batch, length]`, which tokens are there, where training keeps them all.
    report : FusionReport
        What happened to the tokens.
    """

    place = "fusion"

    def __init__(
        self, reducer: TokenReducer, tokens: FusionTokens, sample_seeds: torch.Tensor, training: bool, **providers
    ):
        self.reducer, self.report = reducer, FusionReport()
        self.stages = {(stage.layer, stage.point): stage for stage in reducer.stages_at(self.place)}
        self.soft = training and bool(self.stages) and reducer.soft_training
        self.policy = tokens.valid.float() if self.soft else None
        self.carry: Carry = {}
        if reducer.counts_padding and self.place == "fusion":
            self.carry, tokens = {"key_weight": tokens.valid.float()}, tokens.with_padding()
        self.tokens = tokens
        self.act = StageRunner(reducer, tokens.counts(), sample_seeds, self.rules(), providers)

    def rules(self) -> Rules:
        """What a decision may do."""
        return Rules("right", leading=1, merges_text=True, joint=self.reducer.joint)

    @classmethod
    @on_host
    def start(cls, *inputs, **providers):
        """Build it, outside of graphs."""
        return cls(*inputs, **providers)

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
            (self.tokens, self.carry), (hidden_states,) = self.act(stage, self.tokens, self.carry, [hidden_states])
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
            size = self.tokens.size if self.place in self.reducer.proportional_attention else None
            self.mask, self.masked = key_bias(self.tokens.valid, hidden_states.dtype, size), self.tokens
        stage = self.stages.get((number, "before_ffn"))
        self.report.received.append(self.tokens)
        decide = None if stage is None else BlockDecision(self.act, stage, self.carry, self.tokens, self.mask)
        return hidden_states, self.mask, decide, self.key_weight

    @on_host
    def after_block(self, kept: tuple[FusionTokens, Carry] | None) -> None:
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
    carry: Carry


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
        providers = block_providers(query, key, self.mask, self.carry)
        kept, (hidden_states,) = self.act(self.stage, self.tokens, self.carry, [hidden_states], **providers)
        return kept, hidden_states


def block_providers(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, carry: Carry) -> dict:
    """What a method may ask for inside a block of queries and keys `[batch, heads, length, head_dim]`."""
    return {
        "keys": cache(lambda: key.mean(1)),
        "queries": cache(lambda: query.mean(1)),
        "attention_rows": lambda rows: fusion_attention_rows(query, key, bias, rows, carry.get("key_weight")),
    }
