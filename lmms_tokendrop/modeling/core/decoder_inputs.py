"""What a staged decoder is given: what is asked of a reducer, checks, and the chunks that run one after the other."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from transformers.utils import logging

from .reducer import TokenReducer
from .staged_cache import StagedCache
from .visual_tokens import DecoderTokens, VisualTokens

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class ReductionRequest:
    """What a forward pass asks of a reducer.

    Attributes
    ----------
    reducer : TokenReducer
        The method.
    tokens : VisualTokens or None
        `[batch, length]`, provenance of the input; None where it brings no image.
    prompt_length : int or None
        Tokens that belong to the prompt, past ones included. Later ones are generated or candidate answers: they
        are never scored, and see what the cache would hold. None: all are the prompt's.
    sample_seeds : torch.LongTensor or None
        `[batch]`, seeds of methods that draw at random; None: 0.
    """

    reducer: TokenReducer
    tokens: VisualTokens | None = None
    prompt_length: int | None = None
    sample_seeds: torch.Tensor | None = None

    def __post_init__(self):
        seeds, tokens = self.sample_seeds, self.tokens
        if seeds is not None and not isinstance(seeds, torch.Tensor):
            raise ValueError(f"sample_seeds={seeds!r}; allowed: a tensor with one per sequence")
        if seeds is not None and tokens is not None and tuple(seeds.shape) != (len(tokens),):
            raise ValueError(f"sample_seeds of shape {tuple(seeds.shape)}; allowed: one per sequence, ({len(tokens)},)")

    @property
    def reads_cache(self) -> bool:
        """Whether the method scores tokens by, or shrinks, the cache of the image that the input brings."""
        return self.tokens is not None and bool(self.reducer.stages_at("decoder", "decode"))

    def new_prompt_tokens(self, past: int, length: int) -> int:
        """How many of `length` new tokens are the prompt's.

        Raises
        ------
        ValueError
            If `prompt_length` lies outside the new tokens, or an image lies outside the prompt.
        """
        if self.prompt_length is None:
            return length
        if not past < self.prompt_length <= past + length:
            raise ValueError(f"prompt_length={self.prompt_length}; allowed: {past + 1} to {past + length}")
        new = self.prompt_length - past
        if self.tokens is not None and bool(self.tokens.visual[:, new:].any()):
            raise ValueError(f"prompt_length={self.prompt_length}: an image lies outside the prompt")
        return new

    def chunk(self, start: int, stop: int) -> "ReductionRequest":
        """The part of the request for input tokens `start .. stop - 1`; only the first part brings images."""
        brings = start == 0 and self.tokens is not None
        return replace(self, tokens=self.tokens.map(lambda values: values[:, start:stop]) if brings else None)


@dataclass(frozen=True)
class Chunk:
    """A part of the input that runs through all layers before the next part does.

    Attributes
    ----------
    states : torch.Tensor
        `[batch, length, channels]`, embeddings.
    position_ids : torch.LongTensor
        `[batch or 1, length]`, rotary positions in the unreduced sequence.
    mask : torch.BoolTensor or None
        `[batch, length]`, False for padding.
    request : ReductionRequest or None
        What to reduce; None: nothing.
    """

    states: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor | None
    request: ReductionRequest | None

    def enter(self, cache: StagedCache) -> DecoderTokens:
        """The sequence before the first layer; its provenance joins the cache's."""
        batch, length, device = *self.states.shape[:2], self.position_ids.device
        index = torch.arange(cache.seen, cache.seen + length, device=device).expand(batch, -1)
        padded = self.mask is not None and not bool(self.mask.all())
        if padded:
            index = index.masked_fill(~self.mask.to(device), -1)
        tokens = cache.extend(batch, length, device, None if self.request is None else self.request.tokens)
        return DecoderTokens(index, padded, self.position_ids, tokens)


def input_chunks(
    config: Any,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    past: int,
    reduction: ReductionRequest | None,
) -> list[Chunk]:
    """Check an input and cut it: one chunk, or two where an answer follows the prompt.

    Parameters
    ----------
    config : PreTrainedConfig
        The decoder's.
    embeddings : torch.Tensor
        `[batch, length, channels]`.
    attention_mask : torch.Tensor or None
        `[batch, past + length]`, 0 for padding.
    position_ids : torch.LongTensor or None
        `[batch or 1, length]`.
    past : int
        Tokens seen before.
    reduction : ReductionRequest or None
        What to reduce; None: nothing.

    Raises
    ------
    ValueError
        If the mask has another shape or pads on the right, an active sliding window is shorter than the sequence, or
        `prompt_length` does not fit.
    """
    length = embeddings.shape[1]
    if attention_mask is not None:
        _check_mask(attention_mask, past, length)
    _check_length(config, past + length)
    if position_ids is None:
        position_ids = torch.arange(past, past + length, device=embeddings.device).unsqueeze(0)
    prompt = length if reduction is None else reduction.new_prompt_tokens(past, length)
    cuts = [0, prompt, length] if prompt < length else [0, length]
    return [
        Chunk(
            embeddings[:, start:stop],
            position_ids[:, start:stop],
            None if attention_mask is None else attention_mask[:, past + start : past + stop].bool(),
            None if reduction is None else reduction.chunk(start, stop),
        )
        for start, stop in pairwise(cuts)
    ]


def _check_mask(attention_mask: torch.Tensor, past: int, length: int) -> None:
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2:
        raise ValueError("attention_mask must be a tensor of shape [batch, past + length], 0 for padding")
    if attention_mask.shape[1] != past + length:
        raise ValueError(
            f"attention_mask must cover {past} past and {length} new tokens, got {attention_mask.shape[1]} columns"
        )
    if past == 0 and bool((attention_mask.bool().int().diff(dim=-1) < 0).any()):
        raise ValueError('attention_mask pads on the right; use left padding (tokenizer.padding_side = "left")')


def _check_length(config, length: int) -> None:
    """Fail behind a sliding window; warn, once, of more than the model was made for: it takes them nevertheless."""
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    active = window is not None and (layer_types is None or "sliding_attention" in layer_types)
    if active and length > window:
        raise ValueError(f"sliding_window={window} is shorter than the sequence of {length} tokens; not supported")
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and length > limit:
        logger.warning_once(
            f"a sequence has more tokens than max_position_embeddings={limit}, what the model was made for; its "
            "answers may be wrong"
        )
