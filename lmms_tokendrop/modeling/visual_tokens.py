"""Where each visual token comes from, and what the vision stage said of it."""

from dataclasses import dataclass, fields

import torch

PART_RANGE = 2**20


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
        False for members of a merged window other than its slot: they leave before the first decoder layer.
    key : torch.BoolTensor
        True for key tokens (MustDrop, vision encoding).
    cls_attention : torch.FloatTensor
        Head-mean attention of the CLS query in the last vision block; 0 where it was not computed.
    forced_merges : torch.LongTensor
        Windows of the token's image that were merged because the budget could not be met without.
    """

    image: torch.Tensor
    tile: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    line: torch.Tensor
    newline: torch.Tensor
    present: torch.Tensor
    key: torch.Tensor
    cls_attention: torch.Tensor
    forced_merges: torch.Tensor

    @classmethod
    def text(cls, batch: int, length: int, device: torch.device) -> "VisualTokens":
        """A batch without visual tokens."""
        values = {}
        for field in fields(cls):
            if field.name in ("newline", "present", "key"):
                values[field.name] = torch.zeros(batch, length, dtype=torch.bool, device=device)
            elif field.name == "cls_attention":
                values[field.name] = torch.zeros(batch, length, dtype=torch.float32, device=device)
            else:
                values[field.name] = torch.full((batch, length), -1, dtype=torch.long, device=device)
        return cls(**values)

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
        placed = cls.text(mask.shape[0], mask.shape[1], mask.device)
        lengths = [len(image) for image in images]
        per_row = mask.sum(-1).tolist()
        if sum(lengths) != sum(per_row):
            raise ValueError(f"Image features and image tokens do not match, tokens: {per_row}, features: {lengths}")
        numbers, taken = [], iter(lengths)
        for row_total in per_row:
            number, filled = 0, 0
            while filled < row_total:
                filled += next(taken)
                numbers.append(number)
                number += 1
            if filled != row_total:
                raise ValueError(f"Images of {lengths} tokens do not fill sequences of {per_row} image placeholders")
        for field in fields(cls):
            if images and field.name == "image":
                flat = torch.cat([torch.full_like(i.tile, number) for i, number in zip(images, numbers, strict=True)])
            elif images:
                flat = torch.cat([getattr(image, field.name) for image in images])
            else:
                continue
            target = getattr(placed, field.name)
            target[mask] = flat.to(target.device, target.dtype)
        return placed

    def __len__(self) -> int:
        return len(self.tile)

    @property
    def visual(self) -> torch.Tensor:
        """`[batch, length]`, True for visual tokens."""
        return self.image >= 0

    def map(self, function) -> "VisualTokens":
        """Apply a tensor function to every field."""
        return VisualTokens(**{field.name: function(getattr(self, field.name)) for field in fields(self)})

    def select(self, index: torch.Tensor, valid: torch.Tensor) -> "VisualTokens":
        """Gather `[batch, kept]` tokens of each sequence; entries that are not valid become text."""
        picked = self.map(lambda values: values.gather(1, index))
        picked.image = picked.image.masked_fill(~valid, -1)
        return picked

    def append(self, other: "VisualTokens") -> "VisualTokens":
        """Concatenate along the sequence."""
        joined = {
            field.name: torch.cat([getattr(self, field.name), getattr(other, field.name)], dim=-1)
            for field in fields(self)
        }
        return VisualTokens(**joined)

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
        rows = torch.arange(self.image.shape[0], device=self.image.device).unsqueeze(-1).expand_as(self.image)
        parts = {"request": (rows,), "image": (rows, self.image), "tile": (rows, self.image, self.tile)}[scope]
        return _number(parts, self.visual)

    def lines(self, scope: str) -> torch.Tensor:
        """Number the image rows that end in a newline.

        With `scope="tile"` only the tile that the newline ends counts as its row.

        Returns
        -------
        torch.LongTensor
            `[batch, length]`, unique over the batch; -1 for tokens on which no newline depends.
        """
        rows = torch.arange(self.image.shape[0], device=self.image.device).unsqueeze(-1).expand_as(self.image)
        ends = self.visual & self.newline
        inside = self.visual & (self.line >= 0)
        number, count = _number((rows, self.image, self.line), inside)
        alive = torch.zeros(max(count, 1), dtype=torch.bool, device=rows.device)
        alive[number[ends]] = True
        inside = inside & alive[number.clamp_min(0)]
        if scope == "tile":
            owner = torch.full((max(count, 1),), -1, device=rows.device)
            owner[number[ends]] = self.tile[ends]
            inside = inside & (owner[number.clamp_min(0)] == self.tile)
        return number.masked_fill(~inside, -1)


def _number(parts: tuple[torch.Tensor, ...], inside: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Consecutive numbers for the distinct combinations of `parts` among the marked entries, -1 elsewhere."""
    numbers = torch.full(inside.shape, -1, dtype=torch.long, device=inside.device)
    keys = torch.zeros(int(inside.sum()), dtype=torch.long, device=inside.device)
    for part in parts:
        keys = keys * PART_RANGE + part[inside]
    if len(keys) == 0:
        return numbers, 0
    unique, inverse = torch.unique(keys, return_inverse=True)
    numbers[inside] = inverse
    return numbers, len(unique)
