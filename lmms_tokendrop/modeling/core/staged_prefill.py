"""A reducer's stages during one prefill."""

from functools import partial

import torch

from ..ops.token_ops import segment_sum
from .applying import Counted, apply, check_counted
from .cache_selection import compact_cache
from .decoder_inputs import ReductionRequest
from .decoder_options import setting
from .reducer import Context, Stage
from .selection import DecoderCounts, keep_by_mask, keep_by_priority
from .staged_cache import StagedCache
from .token_report import StageRecord
from .visual_tokens import DecoderTokens

BEFORE_FIRST_LAYER = -1


class StagedPrefill:
    """Calls the reducer where it acts, applies what it decides, and keeps the accounts.

    Parameters
    ----------
    request : ReductionRequest
        The reducer and what it may know of the request.
    sequence : DecoderTokens
        The chunk before the first layer.
    cache : StagedCache
        The request's cache, on which the accounts are kept.
    training : bool
        Whether gradients are wanted, which a hard drop can't give.
    """

    def __init__(self, request: ReductionRequest, sequence: DecoderTokens, cache: StagedCache, training: bool):
        self.reducer = request.reducer
        self.cache = cache
        self.training = training
        stages = self.reducer.stages_at("features", "decoder")
        self.stages: dict[int, Stage | None] = {stage.layer: stage for stage in stages}
        if self.reducer.stages_at("vision"):
            self.stages.setdefault(BEFORE_FIRST_LAYER, None)
        self.carry: dict[str, torch.Tensor] = {}
        self._count(sequence)
        self.full = self.counts
        newlines = sequence.visual & sequence.tokens.newline
        self.full_newlines = segment_sum(newlines.long(), self.groups, len(self.full))
        self.processed: list[torch.Tensor] = []
        self.received: list[torch.Tensor] = []
        self.lengths: list[int] = []
        self.left: list[Counted] = []
        seeds = request.sample_seeds
        self.sample_seeds = torch.zeros(len(sequence.place), dtype=torch.long) if seeds is None else seeds
        behind = sequence.visual.cumsum(-1) > 0
        self.last_before_images = sequence.place.masked_fill(behind, -1).amax(-1, keepdim=True)

    def _count(self, sequence: DecoderTokens) -> None:
        """Number the groups, and count the visual tokens of each, and of each row; padding is in no group."""
        groups, count = sequence.tokens.groups(setting(self.reducer.options, "scope"))
        self.groups = groups.masked_fill(~sequence.valid, -1)
        self.counts = segment_sum(sequence.visual.long(), self.groups, count)
        self.row_counts = sequence.visual.sum(-1)

    def receive(self, sequence: DecoderTokens) -> None:
        """Note what the next layer receives."""
        self.processed.append(self.counts)
        self.received.append(self.row_counts)
        self.lengths.append(sequence.place.shape[1])

    def leave(self, layer: int, sequence: DecoderTokens, hidden_states: torch.Tensor, **providers):
        """Run the stage after a decoder layer.

        Parameters
        ----------
        layer : int
            The layer whose attention has just run, or `BEFORE_FIRST_LAYER`.
        sequence : DecoderTokens
            The chunk.
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        **providers : Callable
            Of the :class:`Context`.

        Returns
        -------
        tuple[DecoderTokens, torch.Tensor]
            The chunk and its states afterwards.
        """
        stage = self.stages[layer]
        context = self._context(sequence, hidden_states, providers)
        if stage is None:  # the vision encoder left tokens out, and no stage of the method drops them
            keep = keep_by_mask(self.reducer.options, context, torch.ones_like(context.valid), context.valid.double())
        else:
            keep = self.reducer.keep(stage, context)
        after, (hidden_states,), self.carry = apply(sequence, [hidden_states], keep, self.reducer, "left")
        if layer == BEFORE_FIRST_LAYER and bool((after.visual & ~after.tokens.present).any()):
            raise RuntimeError("A stage tried to keep tokens that the vision tower left out")
        if after is not sequence:
            self._count(after)
        wanted = None if stage is None else self.reducer.count(stage, context.counts)
        if wanted is not None:
            self.left.append((layer, "visual ", wanted, self.counts))
        if self.training and after is not sequence:
            raise RuntimeError(
                "token_reduction: a hard drop has no gradient for what leaves; call model.eval(), or train "
                'with {"method": "none"}'
            )
        name = "before layer 0" if layer == BEFORE_FIRST_LAYER else f"after layer {layer}"
        self.cache.records = [*self.cache.records, StageRecord(name, after.place, self.carry)]
        return after, hidden_states

    def finish(self, sequence: DecoderTokens) -> None:
        """After the last layer: compact the cache if the method does, and hand over the accounts."""
        slack = 1 if setting(self.reducer.options, "newlines") == "row" else 0  # the newline of a row
        check_counted(self.left, slack)
        decode = [stage for stage in self.reducer.stages_at("decode") if stage.point == "after_prefill"]
        compact_cache(self.cache, self.reducer, decode, sequence, self.lengths)
        counts, earlier = [*self.received, self.row_counts], self.cache.received
        self.cache.received = [a + b for a, b in zip(earlier, counts, strict=True)] if earlier else counts

    def _context(self, sequence: DecoderTokens, hidden_states: torch.Tensor, providers: dict) -> Context:
        tokens, options = sequence.tokens, self.reducer.options
        protected = self.carry.get("protected", torch.zeros_like(sequence.valid))
        counts = DecoderCounts(options, tokens, self.groups, self.full, self.full_newlines, self.processed, protected)
        context = Context(
            tokens=tokens,
            valid=sequence.valid,
            hidden_states=hidden_states,
            counts=counts,
            text_rows=sequence.valid & ~sequence.visual & (sequence.place > self.last_before_images),
            sample_seeds=self.sample_seeds,
            carry=self.carry,
            providers=providers,
        )
        providers["best"] = partial(keep_by_priority, options, context)
        if "cls_attention" in tokens.carry:
            providers["cls_attention"] = lambda: tokens.carry["cls_attention"]
        return context
