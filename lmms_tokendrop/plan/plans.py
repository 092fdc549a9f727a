"""What a plan says of a model: tokens of each layer, multiply-accumulates (MACs) of each part, bytes of its cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

PREFILL, DECODE, SCORING = "prefill", "decode", "scoring"
"""Parts of a decoder: the prompt, the tokens that are generated, and what a method computes to decide."""


@dataclass(frozen=True)
class Request:
    """What a model is asked, and how often at once.

    Parameters
    ----------
    images
        Width and height of each image in pixels; none: the model's own square.
    visual_tokens
        Tokens that every layer of a decoder has instead of images; None: images.
    before, behind
        Text tokens before and behind the images; an encoder has both as one text. None: what is usual.
    new_tokens
        Tokens that are generated.
    concurrent
        Requests whose caches are held at once.
    dtype
        Of the cache.
    """

    images: tuple[tuple[int, int], ...] = ()
    visual_tokens: int | None = None
    before: int | None = None
    behind: int | None = None
    new_tokens: int = 32
    concurrent: int = 1
    dtype: torch.dtype = torch.float16


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of a part, half of its FLOPs.

    Parameters
    ----------
    full
        Attention counted in full, as `torch.utils.flop_counter` counts it.
    causal
        Attention of a decoder's prefill counted at half, as a causal kernel needs; elsewhere the same.
    """

    full: float
    causal: float

    @classmethod
    def of(cls, macs: float) -> Macs:
        """Of a part without causal attention."""
        return cls(macs, macs)

    @classmethod
    def sum(cls, parts: Iterable[Macs]) -> Macs:
        """Of several parts."""
        full, causal = zip(*((part.full, part.causal) for part in parts), strict=True)
        return cls(sum(full), sum(causal))


@dataclass(frozen=True)
class Plan:
    """What a model leaves and costs for one request.

    Parameters
    ----------
    given, token_reduction
        Options of the reduction as they were given, and with all defaults.
    visual_tokens
        That each layer receives; of an encoder those of the image, its CLS included.
    text_tokens
        That each layer receives.
    average_input
        Mean over layers of `visual_tokens`.
    average_release
        The same, counted behind the drop that follows each layer, as the MustDrop release does.
    stages
        By name, counts of what each stage leaves.
    macs
        By part.
    cached
        Entries of each layer's cache when the answer ends; none in encoders.
    kv_bytes, visual_kv_bytes
        Of these, and of the visual tokens among them.
    kv_bytes_per_token
        What a token takes in all layers.
    published_macs
        Of prefill by the formula that papers have.
    concurrent
        Requests that are held at once.
    assumed
        What the figures rest on, a sentence each.
    """

    given: Mapping[str, Any]
    token_reduction: Mapping[str, Any]
    visual_tokens: tuple[int, ...]
    text_tokens: tuple[int, ...]
    average_input: float
    average_release: float
    stages: Mapping[str, Mapping[str, int]]
    macs: Mapping[str, Macs]
    cached: tuple[int, ...] = ()
    kv_bytes: int = 0
    visual_kv_bytes: int = 0
    kv_bytes_per_token: int = 0
    published_macs: int = 0
    concurrent: int = 1
    assumed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def phases(self) -> dict[str, Macs]:
        """Sums of parts that run one after the other without scoring: of an encoder the whole."""
        parts = {name: macs for name, macs in self.macs.items() if name not in (DECODE, SCORING)}
        if PREFILL not in parts:
            return {"whole": Macs.sum(parts.values())}
        first = {"first token": Macs.sum(parts.values())} if len(parts) > 1 else {}
        decode = {DECODE: self.macs[DECODE]} if DECODE in self.macs else {}
        return {PREFILL: parts[PREFILL], **first, **decode}

    @property
    def kv_bytes_of_all(self) -> int:
        """Bytes of the caches of all requests."""
        return self.kv_bytes * self.concurrent

    def speed_ups(self, unreduced: Plan) -> dict[str, Macs]:
        """What MACs allow against another plan, scoring left out, by phase."""
        return {
            name: Macs(whole.full / self.phases[name].full, whole.causal / self.phases[name].causal)
            for name, whole in unreduced.phases.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON types."""
        return {**asdict(self), "kv_bytes_of_all": self.kv_bytes_of_all}
