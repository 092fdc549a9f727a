"""Where each visual token comes from, and the tokens inside a decoder."""

from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import accumulate
from typing import ClassVar

import torch

PART_RANGE = 2**20

FIELDS = ("image", "tile", "row", "column", "line", "newline", "present")
"""What is known of every token."""


@dataclass
class VisualTokens:
    """Provenance of visual tokens: one image `[tokens]`, or a batch of sequences `[batch, length]`.

    In a batch, text and padding have `image == -1`.

    Attributes
    ----------
    image : torch.LongTensor
        Number of the image within its sequence.
    tile : torch.LongTensor
        Tile of the image; 0 is the base view. A newline has the tile that it ends.
    row, column : torch.LongTensor
        Cell of the tile's patch grid; a newline's column is one past the last.
    line : torch.LongTensor
        Row of the whole image that a newline ends, or -1 for tokens of a view without newlines.
    newline : torch.BoolTensor
        True for newline tokens.
    present : torch.BoolTensor
        False for what the vision encoder left out: it leaves before the first decoder layer.
    carry : dict[str, torch.Tensor]
        What a vision stage, or the vision tower, says of each token, by name; 0 for text.
    numbered : dict[str, tuple[torch.LongTensor, int]]
        What :meth:`groups` gave.
    """

    image: torch.Tensor
    tile: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    line: torch.Tensor
    newline: torch.Tensor
    present: torch.Tensor
    carry: dict[str, torch.Tensor] = field(default_factory=dict)
    numbered: dict[str, tuple[torch.Tensor, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def text(cls, batch: int, length: int, device: torch.device) -> "VisualTokens":
        """A batch without visual tokens."""
        absent = torch.zeros(batch, length, dtype=torch.bool, device=device)
        nowhere = torch.full((batch, length), -1, device=device)
        return cls(nowhere, nowhere, nowhere, nowhere, nowhere, absent, absent)

    @classmethod
    def place(cls, images: list["VisualTokens"], mask: torch.Tensor) -> "VisualTokens":
        """Lay the tokens of a batch's images, in order, on the placeholders of its sequences.

        Parameters
        ----------
        images : list[VisualTokens]
            One entry per image, `[tokens]` each.
        mask : torch.BoolTensor
            `[batch, length]`, True at placeholders.

        Returns
        -------
        VisualTokens
            `[batch, length]`; images are numbered from 0 within each sequence.

        Raises
        ------
        ValueError
            If images do not fill whole sequences, or their tokens do not match the placeholders.
        """
        counts = images_of_rows([len(image) for image in images], mask.sum(-1).tolist())
        placed = cls.text(mask.shape[0], mask.shape[1], mask.device)
        if not images:
            return placed
        numbers = (number for count in counts for number in range(count))
        numbered = [replace(one, image=torch.full_like(one.tile, n)) for one, n in zip(images, numbers, strict=True)]
        joined = reduce(VisualTokens.append, numbered)
        return cls.combined(lambda around, new: around.masked_scatter(mask, new.to(mask.device)), placed, joined)

    @classmethod
    def combined(cls, function, *parts: "VisualTokens") -> "VisualTokens":
        """Apply a function to what is known of the tokens of each part, tensor by tensor; 0 where a carry has none."""
        known = {name: function(*(getattr(part, name) for part in parts)) for name in FIELDS}
        carry = {}
        for name in sorted({name for part in parts for name in part.carry}):
            kind = next(part.carry[name].dtype for part in parts if name in part.carry)
            carry[name] = function(*(part._carried(name, kind) for part in parts))
        return cls(**known, carry=carry)

    def _carried(self, name: str, kind: torch.dtype) -> torch.Tensor:
        return self.carry[name] if name in self.carry else torch.zeros_like(self.tile, dtype=kind)

    def __len__(self) -> int:
        return len(self.tile)

    @cached_property
    def visual(self) -> torch.Tensor:
        """`[batch, length]`, True for visual tokens."""
        return self.image >= 0

    @cached_property
    def patches(self) -> torch.Tensor:
        """`[batch, length]`, True for patches that the vision tower did not leave out; not for newlines."""
        return self.visual & self.present & ~self.newline

    def map(self, function) -> "VisualTokens":
        """Apply a tensor function to everything that is known of each token."""
        return VisualTokens.combined(function, self)

    def select(self, index: torch.Tensor, valid: torch.Tensor) -> "VisualTokens":
        """Gather `[batch, kept]` tokens of each sequence; entries that are not valid become text.

        Groups keep their numbers, also where all tokens of one are left out.
        """
        picked, absent = self.map(lambda values: values.gather(1, index)), ~valid
        picked = replace(picked, image=picked.image.masked_fill(absent, -1))
        for scope, (groups, count) in self.numbered.items():
            picked.numbered[scope] = groups.gather(1, index).masked_fill(absent, -1), count
        return picked

    def split(self, lengths: list[int]) -> list["VisualTokens"]:
        """Cut `[tokens]` into parts of these lengths."""
        parts = [slice(end - length, end) for length, end in zip(lengths, accumulate(lengths), strict=True)]
        return [self.map(lambda values, part=part: values[part]) for part in parts]

    def append(self, other: "VisualTokens") -> "VisualTokens":
        """Concatenate along the sequence."""
        return VisualTokens.combined(lambda *values: torch.cat(values, dim=-1), self, other)

    def groups(self, scope: str) -> tuple[torch.Tensor, int]:
        """Number the groups that share one budget.

        Parameters
        ----------
        scope : {"tile", "image", "request"}
            What a budget is stated for.

        Returns
        -------
        tuple[torch.LongTensor, int]
            `[batch, length]` group of each visual token, -1 for text, and the number of groups.
        """
        if scope not in self.numbered:
            parts = {"request": (), "image": (self.image,), "tile": (self.image, self.tile)}[scope]
            self.numbered[scope] = _number(self.visual, *parts)
        return self.numbered[scope]

    def lines(self, scope: str) -> torch.Tensor:
        """Number the image rows that end in a newline.

        With `scope="tile"` only the tile that the newline ends counts as its row.

        Returns
        -------
        torch.LongTensor
            `[batch, length]`, unique over the batch; -1 for tokens on which no newline depends.
        """
        number, count = _number(self.visual & (self.line >= 0), self.image, self.line)
        ends = torch.where(self.newline & (number >= 0), number, count)
        owner = torch.full((count + 1,), -1, device=number.device)
        owner = owner.scatter(0, ends.flatten(), self.tile.flatten())[number]
        alone = owner != self.tile if scope == "tile" else owner < 0
        return number.masked_fill(alone, -1)


def images_of_rows(lengths: list[int], totals: list[int]) -> list[int]:
    """How many images fill each sequence.

    Parameters
    ----------
    lengths : list[int]
        Tokens of each image, in order.
    totals : list[int]
        Placeholders of each sequence.

    Raises
    ------
    ValueError
        If the tokens do not match the placeholders, or the images do not fill whole sequences.
    """
    if sum(lengths) != sum(totals):
        raise ValueError(f"Image features and image tokens do not match, tokens: {totals}, features: {lengths}")
    counts, taken = [], iter(lengths)
    for total in totals:
        counts.append(0)
        while total > 0:
            total -= next(taken)
            counts[-1] += 1
        if total:
            raise ValueError(f"Images of {lengths} tokens do not fill sequences of {totals} image placeholders")
    return counts


def texts_behind(ids: torch.Tensor, placeholders: torch.Tensor, images: list[int]) -> list[torch.Tensor]:
    """Text behind the first image of its sequence, `[tokens]` ids for each image.

    Parameters
    ----------
    ids : torch.LongTensor
        `[batch, length]`.
    placeholders : torch.BoolTensor
        `[batch, length]`, True where images go.
    images : list[int]
        Images of each sequence.
    """
    behind = ~placeholders & (placeholders.cumsum(-1) > 0)
    return [text[marked] for text, marked, count in zip(ids, behind, images, strict=True) for _ in range(count)]


def _number(inside: torch.Tensor, *parts: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Consecutive numbers for the distinct combinations of row and `parts` among the marked entries, -1 elsewhere."""
    keys = torch.arange(len(inside), device=inside.device).unsqueeze(-1).expand_as(inside)
    for part in parts:
        keys = keys * PART_RANGE + part
    # one more entry is not marked, so that such entries have the first number
    keys = torch.nn.functional.pad(keys.masked_fill(~inside, -1).flatten(), (1, 0), value=-1)
    distinct, numbers = keys.unique(return_inverse=True)
    return numbers[1:].view(inside.shape) - 1, len(distinct) - 1


@dataclass(frozen=True, eq=False)
class Entries:
    """Which tokens a cache layer, or a chunk on its way through the decoder, holds; a key of its own in a dict.

    Attributes
    ----------
    place : torch.LongTensor
        `[batch, length]`, place of each token in its unreduced sequence; -1 for padding.
    padded : bool
        Whether any entry is padding.
    """

    place: torch.Tensor
    padded: bool

    @cached_property
    def valid(self) -> torch.Tensor:
        """`[batch, length]`, False for padding."""
        return self.place >= 0

    @property
    def mask(self) -> torch.Tensor | None:
        """`valid`; None where nothing is padding."""
        return self.valid if self.padded else None

    def append(self, other: "Entries") -> "Entries":
        """Entries of this, then of `other`."""
        return Entries(torch.cat([self.place, other.place], dim=1), self.padded or other.padded)


@dataclass(frozen=True, eq=False)
class DecoderTokens(Entries):
    """The tokens inside the decoder, without their states.

    Attributes
    ----------
    position_ids : torch.LongTensor
        `[batch or 1, length]`, rotary positions in the unreduced sequence.
    tokens : VisualTokens
        `[batch, length]`.
    leading, merges_text : int, bool
        As in :class:`.fusion_tokens.FusionTokens`; none, and no.
    """

    leading: ClassVar[int] = 0
    merges_text: ClassVar[bool] = False

    position_ids: torch.Tensor
    tokens: VisualTokens

    @property
    def visual(self) -> torch.Tensor:
        """`[batch, length]`, True for visual tokens."""
        return self.tokens.visual

    def images(self) -> tuple[torch.Tensor, int]:
        """Image of each visual token over the batch `[batch, length]`, -1 for text, and the number of images."""
        return self.tokens.groups("image")

    def after(self, target: torch.Tensor, index: torch.Tensor, valid: torch.Tensor, padded: bool) -> "DecoderTokens":
        """The tokens that are left; see :meth:`.fusion_tokens.FusionTokens.after`."""
        return DecoderTokens(
            place=self.place.gather(1, index).masked_fill(~valid, -1),
            position_ids=self.position_ids.expand(len(index), -1).gather(1, index),
            tokens=self.tokens.select(index, valid),
            padded=padded,
        )
