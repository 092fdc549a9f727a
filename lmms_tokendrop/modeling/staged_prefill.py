"""A reducer's stages during one prefill."""

import torch

from .cache_policies import compact_cache
from .reduction_request import ReductionRequest
from .staged_cache import Entries, StagedCache
from .stages import Sequence, StageContext, apply_keep
from .token_ops import segment_sum
from .token_report import StageRecord

BEFORE_FIRST_LAYER = -1


class StagedPrefill:
    """Calls the reducer where it acts, applies what it decides, and keeps the accounts.

    Parameters
    ----------
    request : ReductionRequest
        The reducer and what it may know of the request.
    sequence : Sequence
        The chunk before the first layer.
    cache : StagedCache
        The request's cache, on which the accounts are kept.
    num_layers : int
        Number of decoder layers.
    training : bool
        Whether gradients are wanted, which a hard drop can't give.
    """

    def __init__(self, request: ReductionRequest, sequence: Sequence, cache: StagedCache, num_layers: int, training):
        self.reducer = request.reducer
        self.cache = cache
        self.num_layers = num_layers
        self.training = training
        self.stages = {stage.layer: stage for stage in self.reducer.stages() if stage.where == "prefill"}
        self.first_index = cache.seen - sequence.index.shape[1]
        self.groups, self.group_count = sequence.tokens.groups(self.reducer.config.scope)
        self.full = self._count(sequence.tokens.visual, sequence)
        self.full_newlines = self._count(sequence.tokens.visual & sequence.tokens.newline, sequence)
        self.processed: list[torch.Tensor] = []
        self.received: list[torch.Tensor] = []
        self.received_release: list[torch.Tensor] = []
        self.lengths: list[int] = []
        batch = sequence.index.shape[0]
        seeds = request.sample_seeds
        self.sample_seeds = torch.zeros(batch, dtype=torch.long) if seeds is None else seeds
        visual = sequence.tokens.visual
        self.text_index = sequence.index.masked_fill(visual | (visual.cumsum(-1) == 0), -1)

    def receive(self, sequence: Sequence) -> None:
        """Note what the next layer receives."""
        self.processed.append(self._count(sequence.tokens.visual, sequence))
        self.received.append(sequence.tokens.visual.sum(-1))
        self.lengths.append(sequence.index.shape[1])

    def acts_after(self, layer: int) -> bool:
        """Whether a stage follows a decoder layer (or `BEFORE_FIRST_LAYER`)."""
        return layer in self.stages

    def leave(self, layer: int, sequence: Sequence, hidden_states: torch.Tensor, attention_rows=None):
        """Run the stage after a decoder layer.

        Parameters
        ----------
        layer : int
            The layer whose attention has just run, or `BEFORE_FIRST_LAYER`.
        sequence : Sequence
            The chunk.
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        attention_rows : Callable, optional
            See :class:`StageContext`.

        Returns
        -------
        tuple[Sequence, torch.Tensor]
            The chunk and its states afterwards.
        """
        before = sequence
        keep = self.reducer.keep(self.stages[layer], self._context(sequence, attention_rows))
        sequence, hidden_states = apply_keep(sequence, hidden_states, keep)
        if self.training and sequence is not before:
            raise RuntimeError(
                "token_reduction: a hard drop has no gradient for what leaves; call model.eval(), or train "
                'with {"method": "none"}'
            )
        name = "before layer 0" if layer == BEFORE_FIRST_LAYER else f"after layer {layer}"
        self.cache.records.append(StageRecord(name, sequence.index))
        return sequence, hidden_states

    def left(self, sequence: Sequence) -> None:
        """Note what a layer, and the stage after it, left."""
        self.received_release.append(sequence.tokens.visual.sum(-1))

    def finish(self, sequence: Sequence) -> None:
        """After the last layer: compact the cache if the method does, and hand over the accounts."""
        decode = [stage for stage in self.reducer.stages() if stage.where == "decode"]
        if decode:
            compact_cache(self.cache, Entries(sequence.index, sequence.padded), self.lengths, decode[0].layer)
        accounts = ((self.cache.received, self.received), (self.cache.received_release, self.received_release))
        for earlier, counts in accounts:
            earlier[:] = [a + b for a, b in zip(earlier, counts, strict=True)] if earlier else counts

    def _context(self, sequence: Sequence, attention_rows) -> StageContext:
        return StageContext(
            tokens=sequence.tokens,
            valid=sequence.valid,
            text_rows=(sequence.index >= 0) & self._gather(self.text_index >= 0, sequence),
            groups=self._gather(self.groups, sequence).masked_fill(~sequence.valid, -1),
            full=self.full,
            full_newlines=self.full_newlines,
            processed=self.processed,
            num_layers=self.num_layers,
            sample_seeds=self.sample_seeds,
            attention_rows=attention_rows,
        )

    def _gather(self, values: torch.Tensor, sequence: Sequence) -> torch.Tensor:
        return values.gather(1, (sequence.index - self.first_index).clamp_min(0))

    def _count(self, among: torch.Tensor, sequence: Sequence) -> torch.Tensor:
        """Marked tokens of each group, `[groups]`."""
        groups = self._gather(self.groups, sequence).masked_fill(~sequence.valid, -1)
        return segment_sum(among.long(), groups, self.group_count)
