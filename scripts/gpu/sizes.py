"""The sizes that are measured on a GPU, and tiny ones with which everything runs on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from lmms_tokendrop import pocket_path
from lmms_tokendrop.bench.encoder_variants import ENCODERS, MeasuredEncoder
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.plan.targets import Target, read_target

METHODS = ("mustdrop", "sparsevlm", "fastv", "visionzip", "random")
"""Beside the unreduced model."""


@dataclass(frozen=True)
class Sizes:
    """How large models and measurements are.

    Attributes
    ----------
    target : Target
        The decoder's model.
    image : tuple[int, int]
        Width and height of the prompt's image.
    budgets : tuple[int, ...]
        Visual tokens, the most wanted first.
    encoders : Mapping[str, MeasuredEncoder]
        By name.
    dtype : torch.dtype
        Of all weights.
    text_tokens : int
        Of the prompt, beside the image.
    new_tokens, repeats : int
        Tokens that are generated in a run, and timed runs after one that is not.
    search, window : float
        Seconds for the search of an encoder's batch size, and for timing it then.
    largest_batch : int
        Requests of a decoder at once, at most.
    """

    target: Target
    image: tuple[int, int]
    budgets: tuple[int, ...]
    encoders: Mapping[str, MeasuredEncoder] = field(default_factory=lambda: ENCODERS)
    dtype: torch.dtype = torch.bfloat16
    text_tokens: int = 60
    new_tokens: int = 32
    repeats: int = 5
    search: float = 14.0
    window: float = 8.0
    largest_batch: int = 64

    @cached_property
    def config(self) -> Any:
        """Of the unreduced model."""
        return self.target.config()

    @property
    def tiles(self) -> int:
        """Of the image, the base view first."""
        width, height = self.image
        return 1 + width * height // self.config.vision_config.image_size**2


def real() -> Sizes:
    """LLaVA-NeXT 7B, ViLT-B and METER."""
    return Sizes(read_target("llava-v1.6-vicuna-7b"), (672, 672), (320, 640, 160))


def tiny() -> Sizes:
    """The sizes of the bundled models; weights are random here, too."""
    encoders = {}
    for name, encoder in ENCODERS.items():
        stored: dict[str, Any] = read_json_object(pocket_path(name, "none") / "config.json")
        left = {"model_type", "architectures", "token_reduction", "transformers_version"}
        options = {key: value for key, value in stored.items() if key not in left}
        encoders[name] = replace(encoder, options=options, first_batch=1)
    return Sizes(
        read_target(str(pocket_path("llava_next", "none"))),
        (96, 96),
        (48, 96, 36),
        encoders,
        dtype=torch.float32,
        new_tokens=2,
        repeats=1,
        search=0.0,
        window=0.0,
        largest_batch=2,
    )
