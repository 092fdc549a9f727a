"""The tokens inside an encoder of text and image, and what happened to them."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch

from ..ops.token_ops import group_sizes


@dataclass(frozen=True)
class FusionTokens:
    """The tokens inside the encoder, without their states. Token 0 of each row is the text's CLS.

    Attributes
    ----------
    place : torch.LongTensor
        `[batch, length]`, place in the unreduced sequence, in which the text comes first; -1 for padding.
    owner : torch.LongTensor
        `[batch, unreduced length]`, the token that each unreduced token is part of; -1 if it left.
    text_length : int
        Length of the unreduced text, padding included: the place of the image's CLS.
    leading : int
        First tokens of each row that never move; padding comes behind them.
    merges_text : bool
        Whether text may merge with text, and with the image if a method says so.
    """

    leading: ClassVar[int] = 1
    merges_text: ClassVar[bool] = True

    place: torch.Tensor
    owner: torch.Tensor
    text_length: int

    @classmethod
    def start(cls, text_valid: torch.Tensor, image_valid: torch.Tensor) -> "FusionTokens":
        """Of an unreduced sequence, from `[batch, text]` and `[batch, image]`, the image's CLS first."""
        valid = torch.cat([text_valid, image_valid], dim=1).bool()
        place = torch.arange(valid.shape[1], device=valid.device).expand_as(valid).masked_fill(~valid, -1)
        return cls(place, place, text_valid.shape[1])

    @classmethod
    def of_image(cls, states: torch.Tensor) -> "FusionTokens":
        """Of whole images alone, from their states `[batch, image, channels]`, CLS first."""
        valid = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return cls.start(valid[:, :0], valid)

    def with_padding(self) -> "FusionTokens":
        """The same, of a sequence of which nothing left yet, with padding as tokens of text and image."""
        every = torch.arange(self.owner.shape[1], device=self.owner.device)
        place = torch.where(self.valid, self.place, every[: self.place.shape[1]])
        return replace(self, place=place, owner=torch.where(self.owner >= 0, self.owner, every))

    def behind_text(self, text_valid: torch.Tensor) -> "FusionTokens":
        """These tokens of an image alone, behind those of a text of which `[batch, text]` are not padding."""
        text, length = FusionTokens.start(text_valid, text_valid[:, :0]), text_valid.shape[1]
        place, owner = (torch.where(values >= 0, values + length, -1) for values in (self.place, self.owner))
        return FusionTokens(torch.cat([text.place, place], dim=1), torch.cat([text.owner, owner], dim=1), length)

    @cached_property
    def valid(self) -> torch.Tensor:
        """`[batch, length]`, False for padding."""
        return self.place >= 0

    @cached_property
    def image(self) -> torch.Tensor:
        """`[batch, length]`, True for the tokens of the image, its CLS included."""
        return self.place >= self.text_length

    @property
    def visual(self) -> torch.Tensor:
        """The same, by the name that tokens of decoders have for it."""
        return self.image

    @property
    def image_cls(self) -> torch.Tensor:
        """`[batch, length]`, True for the image's CLS."""
        return self.place == self.text_length

    @cached_property
    def size(self) -> torch.Tensor:
        """`[batch, length]` float32, number of unreduced tokens that a token is made of; 0 for padding."""
        return group_sizes(self.owner)[:, : self.place.shape[1]]

    @property
    def patches(self) -> torch.Tensor:
        """`[batch, length]`, True for the tokens of the image but its CLS."""
        return self.place > self.text_length

    @cached_property
    def text(self) -> torch.Tensor:
        """`[batch, length]`, True for the tokens of the text."""
        return self.valid & ~self.image

    def counts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the text and of the image, `[batch]` each."""
        return self.text.sum(-1), self.image.sum(-1)

    def images(self) -> tuple[torch.Tensor, int]:
        """Image of each of its tokens over the batch `[batch, length]`, -1 for text, and the number of images."""
        rows = torch.arange(len(self.image), device=self.image.device).unsqueeze(-1)
        return torch.where(self.image, rows, -1), len(self.image)

    def after(self, target: torch.Tensor, index: torch.Tensor, valid: torch.Tensor, padded: bool) -> "FusionTokens":
        """The tokens that are left, of which each is what `target [batch, length]` gives it.

        Parameters
        ----------
        target : torch.LongTensor
            `[batch, length]`, see :class:`.applying.Keep`.
        index : torch.LongTensor
            `[batch, kept]`, where each token was; 0 for padding.
        valid : torch.BoolTensor
            `[batch, kept]`, False for padding.
        padded : bool
            Whether any entry is padding.
        """
        slots = torch.arange(index.shape[1], device=index.device).expand_as(index)
        new_slot = torch.full_like(target, -1).scatter_reduce(1, index, slots.masked_fill(~valid, -1), "amax")
        moved = torch.where(target >= 0, new_slot.gather(1, target.clamp_min(0)), -1)
        owner = torch.where(self.owner >= 0, moved.gather(1, self.owner.clamp_min(0)), -1)
        return replace(self, place=self.place.gather(1, index).masked_fill(~valid, -1), owner=owner)


@dataclass
class FusionReport:
    """What happened to the tokens of a batch, in the words of :class:`.token_report.TokenReport`.

    Attributes
    ----------
    received : list[FusionTokens]
        Per layer, what its attention processed.
    left : list[FusionTokens]
        Per layer, what its FFN processed.
    patches : torch.LongTensor or None
        `[batch, image length - 1, 2]`, row and column of each patch of the unreduced sequence; -1 for padding.
    policies : list[torch.Tensor]
        `[batch, length]` per stage, which tokens are there, where training keeps them all (DynamicViT).
    vision_tokens : list[int]
        Per block of a vision tower in which tokens merge, tokens of each image that its attention processed.
    full_visual_tokens : list[int]
        Per row, tokens of the image, its CLS included, before images were scaled down and before any left or merged.
    """

    received: list[FusionTokens] = field(default_factory=list)
    left: list[FusionTokens] = field(default_factory=list)
    patches: torch.Tensor | None = None
    policies: list[torch.Tensor] = field(default_factory=list)
    vision_tokens: list[int] = field(default_factory=list)
    full_visual_tokens: list[int] = field(default_factory=list)

    @property
    def text_tokens(self) -> list[list[int]]:
        """Tokens of the text that each layer received, per layer and row."""
        return [tokens.counts()[0].tolist() for tokens in self.received]

    @property
    def visual_tokens_per_layer(self) -> list[list[int]]:
        """`[layers][batch]`, image tokens that each layer received, the CLS included."""
        return [tokens.counts()[1].tolist() for tokens in self.received]

    @property
    def average_visual_tokens(self) -> list[float]:
        """`[batch]`, the mean of the above over layers."""
        return torch.tensor(self.visual_tokens_per_layer, dtype=torch.float64).mean(0).tolist()

    @property
    def average_visual_tokens_release(self) -> list[float]:
        """`[batch]`, the same, of what each layer left."""
        return torch.stack([tokens.counts()[1] for tokens in self.left]).double().mean(0).tolist()

    @property
    def kept(self) -> dict[str, list[list[tuple[int, int, int, int]]]]:
        """Per layer and row, (0, 0, row, column) of the patches that it left; none where an image came embedded."""
        kept = {}
        for layer, tokens in enumerate(self.left if self.patches is not None else ()):
            places = zip(self.patches, tokens.place - tokens.text_length - 1, strict=True)
            rows = [grid[place[place >= 0]].tolist() for grid, place in places]
            kept[f"after layer {layer}"] = [[(0, 0, *cell) for cell in row] for row in rows]
        return kept
