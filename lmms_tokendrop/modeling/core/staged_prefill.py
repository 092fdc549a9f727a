"""A reducer's stages during one prefill, and in the cache: after prefill, and while the answer is generated."""

from functools import partial

import torch

from ..ops.token_ops import padded_indices, segment_sum
from .applying import Rules, apply, check_counted
from .decoder_inputs import ReductionRequest
from .decoder_options import setting
from .reducer import Context, Stage, TokenReducer
from .selection import DecoderCounts, keep_by_mask, keep_by_priority
from .staged_cache import Entries, StagedCache, StagedLayer
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
        self.first_index = cache.seen - sequence.place.shape[1]
        self.groups, self.group_count = sequence.tokens.groups(setting(self.reducer.options, "scope"))
        self.full = self._count(sequence.tokens.visual, sequence)
        self.full_newlines = self._count(sequence.tokens.visual & sequence.tokens.newline, sequence)
        self.processed: list[torch.Tensor] = []
        self.received: list[torch.Tensor] = []
        self.lengths: list[int] = []
        self.counted: DecoderTokens | None = None
        seeds = request.sample_seeds
        self.sample_seeds = torch.zeros(len(sequence.place), dtype=torch.long) if seeds is None else seeds
        visual = sequence.tokens.visual
        self.text_behind = sequence.valid & ~visual & (visual.cumsum(-1) > 0)

    def receive(self, sequence: DecoderTokens) -> None:
        """Note what the next layer receives."""
        known, self.counted = sequence is self.counted, sequence
        self.processed.append(self.processed[-1] if known else self._count(sequence.visual, sequence))
        self.received.append(self.received[-1] if known else sequence.visual.sum(-1))
        self.lengths.append(sequence.place.shape[1])

    def acts_at(self, layer: int, point: str) -> bool:
        """Whether a stage is at a point of a decoder layer."""
        stage = self.stages.get(layer)
        return stage is not None and stage.point == point

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
        before, stage = sequence, self.stages[layer]
        context = self._context(sequence, hidden_states, providers)
        if stage is None:  # the vision encoder left tokens out, and no stage of the method drops them
            keep = keep_by_mask(self.reducer.options, context, torch.ones_like(context.valid), context.valid.double())
        else:
            keep = self.reducer.keep(stage, context)
        rules = Rules("left", adds=self.reducer.adds)
        sequence, (hidden_states,), self.carry = apply(sequence, [hidden_states], keep, rules)
        if layer == BEFORE_FIRST_LAYER and bool((sequence.visual & ~sequence.tokens.present).any()):
            raise RuntimeError("A stage tried to keep tokens that the vision tower left out")
        wanted = None if stage is None else self.reducer.count(stage, context.counts)
        if wanted is not None:
            slack = 1 if setting(self.reducer.options, "newlines") == "row" else 0  # the newline of a row
            check_counted(layer, "visual ", wanted, self._count(sequence.visual, sequence), slack)
        if self.training and sequence is not before:
            raise RuntimeError(
                "token_reduction: a hard drop has no gradient for what leaves; call model.eval(), or train "
                'with {"method": "none"}'
            )
        name = "before layer 0" if layer == BEFORE_FIRST_LAYER else f"after layer {layer}"
        self.cache.records = [*self.cache.records, StageRecord(name, sequence.place, self.carry)]
        return sequence, hidden_states

    def finish(self, sequence: DecoderTokens) -> None:
        """After the last layer: compact the cache if the method does, and hand over the accounts."""
        decode = [stage for stage in self.reducer.stages_at("decode") if stage.point == "after_prefill"]
        if decode:
            compact_cache(self.cache, self.reducer, decode, Entries(sequence.place, sequence.padded), self.lengths)
        counts, earlier = [*self.received, sequence.visual.sum(-1)], self.cache.received
        self.cache.received = [a + b for a, b in zip(earlier, counts, strict=True)] if earlier else counts

    def _context(self, sequence: DecoderTokens, hidden_states: torch.Tensor, providers: dict) -> Context:
        tokens, options = sequence.tokens, self.reducer.options
        groups = self._gather(self.groups, sequence).masked_fill(~sequence.valid, -1)
        protected = self.carry.get("protected", torch.zeros_like(sequence.valid))
        counts = DecoderCounts(options, tokens, groups, self.full, self.full_newlines, self.processed, protected)
        context = Context(
            tokens=tokens,
            valid=sequence.valid,
            hidden_states=hidden_states,
            counts=counts,
            text_rows=sequence.valid & self._gather(self.text_behind, sequence),
            sample_seeds=self.sample_seeds,
            carry=self.carry,
            providers=providers,
        )
        providers["best"] = partial(keep_by_priority, options, context)
        if "cls_attention" in tokens.carry:
            providers["cls_attention"] = lambda: tokens.carry["cls_attention"]
        return context

    def _gather(self, values: torch.Tensor, sequence: DecoderTokens) -> torch.Tensor:
        return values.gather(1, (sequence.place - self.first_index).clamp_min(0))

    def _count(self, among: torch.Tensor, sequence: DecoderTokens) -> torch.Tensor:
        """Marked tokens of each group, `[groups]`."""
        groups = self._gather(self.groups, sequence).masked_fill(~sequence.valid, -1)
        return segment_sum(among.long(), groups, self.group_count)


def compact_cache(
    cache: StagedCache, reducer: TokenReducer, stages: list[Stage], final: Entries, chunk_lengths: list[int]
) -> None:
    """Ask a method, for layers of the cache, what stays of a chunk after prefill.

    Keys are cached after rotation, so their positions stay those of the unreduced sequence.

    Parameters
    ----------
    cache : StagedCache
        Changed in place; entries from before the chunk stay.
    reducer : TokenReducer
        The method.
    stages : list[Stage]
        Its stages at "after_prefill".
    final : Entries
        The chunk's tokens after the last stage in the decoder, which the method finds marked as `survivors`.
    chunk_lengths : list[int]
        Entries of the chunk in each layer; they are the layer's last ones.
    """
    left: list[Entries] = []
    shared: dict[int, tuple[Entries, Context]] = {}
    for stage in stages:
        layer: StagedLayer = cache.layers[stage.layer]
        held = layer.entries
        earlier = held.index.shape[1] - chunk_lengths[stage.layer]
        if id(held) not in shared:
            shared[id(held)] = held, _context(cache, layer, survivors=_survivors(held, earlier, final))
        layer.select(*_kept(held, _stays(reducer, stage, shared[id(held)][1]), earlier, left))


def drop_from_cache(cache: StagedCache, reducer: TokenReducer, stages: list[Stage]) -> None:
    """Ask a method, for layers of the cache, what stays after a generated token.

    Parameters
    ----------
    cache : StagedCache
        Changed in place.
    reducer : TokenReducer
        The method.
    stages : list[Stage]
        Its stages at "after_token"; it finds what generated tokens attended as `attention_so_far [batch, entries]`.
    """
    for stage in stages:
        if cache.generated % stage.every == 0:
            layer = cache.layers[stage.layer]
            context = _context(cache, layer, attention_so_far=layer.attention)
            layer.select(*_kept(layer.entries, _stays(reducer, stage, context), 0, []))


def accumulate_attention(layer: StagedLayer, attention: torch.Tensor) -> None:
    """Add a generated token's head-mean attention, `[batch, entries]`, to what the layer has seen."""
    layer.attention = attention if layer.attention is None else layer.attention + attention


def _context(cache: StagedCache, layer: StagedLayer, **known: torch.Tensor) -> Context:
    index = layer.entries.index
    tokens, valid = cache.provenance(index), index >= 0
    return Context(
        tokens=tokens,
        valid=valid,
        hidden_states=None,
        counts=None,
        text_rows=valid & ~tokens.visual,
        sample_seeds=torch.zeros(len(index), dtype=torch.long),
        providers={name: lambda values=values: values for name, values in known.items()},
    )


def _stays(reducer: TokenReducer, stage: Stage, context: Context) -> torch.Tensor:
    """`[batch, entries]`, True for what a method keeps in a layer; nothing else can happen there."""
    keep = reducer.keep(stage, context)
    if keep.merging or keep.added is not None or keep.mixed is not None:
        raise RuntimeError("A stage tried to merge or add tokens in the cache")
    if bool((context.text_rows & ~keep.stays).any()):
        raise RuntimeError("A stage tried to drop text from the cache")
    return keep.stays


def _survivors(held: Entries, earlier: int, final: Entries) -> torch.Tensor:
    """`[batch, entries]`, True for entries from before the chunk, and for those that are in `final` too."""
    chunk = held.index[:, earlier:].contiguous()
    length = chunk.shape[1]
    place = torch.searchsorted(chunk, final.index.clamp_min(0).contiguous()).masked_fill(final.index < 0, length)
    stays = torch.zeros(len(chunk), length + 1, dtype=torch.bool, device=chunk.device).scatter_(1, place, True)
    return torch.cat([held.index[:, :earlier] >= 0, stays[:, :length]], dim=1)


def _kept(held: Entries, keep: torch.Tensor, earlier: int, left: list[Entries]) -> tuple[torch.Tensor | None, Entries]:
    """Places of what stays in a layer (None: all), and its entries; one object for all layers that hold the same.

    The first `earlier` entries stay as they are, padding included.
    """
    leaves = (held.index >= 0) & ~keep
    if bool(leaves[:, :earlier].any()):
        raise RuntimeError("A stage tried to drop what the cache held before the prompt")
    if bool(leaves.any()):
        place, valid = padded_indices(keep[:, earlier:], "left")
        before = torch.arange(earlier, device=place.device).expand(len(place), -1)
        place = torch.cat([before, place + earlier], dim=1)
        index = held.index.gather(1, place)
        index[:, earlier:].masked_fill_(~valid, -1)
        entries = Entries(index, not bool((index >= 0).all()))
    else:
        place, entries = None, held
    same = [known for known in left if torch.equal(known.index, entries.index)]
    left.extend([] if same else [entries])
    return place, same[0] if same else entries
