"""What a forward pass asks of a reducer."""

from dataclasses import dataclass, replace

import torch

from .reducer import TokenReducer
from .visual_tokens import VisualTokens


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
        if self.tokens is None:
            return self
        tokens = self.tokens.map(lambda values: values[:, start:stop]) if start == 0 else None
        return replace(self, tokens=tokens)
