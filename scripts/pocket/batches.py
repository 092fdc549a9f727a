"""Training batches: pictures as the processor would give them, and packed questions with targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.scenes import Scene
from lmms_tokendrop.pocket.vocabulary import BEGIN, END, IMAGE, vocabulary
from pocket.llava_next import PATCH, VIEW

IGNORED = -100
GRID = VIEW // PATCH
WORDS = vocabulary()
USER_TURN = [WORDS["USER"], WORDS[":"]]
ASSISTANT_TURN = [WORDS["ASSISTANT"], WORDS[":"]]


def views(images: torch.Tensor) -> torch.Tensor:
    """Cut square pictures into a base view and tiles, equal to what the stock processor gives.

    Parameters
    ----------
    images
        uint8, [batch, 3, size, size]; size 48 gives one tile, every larger one 2 x 2 tiles.

    Returns
    -------
    torch.Tensor
        Normalised pixels, [batch, views, 3, 48, 48].
    """
    size = images.shape[-1]
    bicubic = functional.InterpolationMode.BICUBIC
    base = images if size == VIEW else functional.resize(images, [VIEW, VIEW], bicubic, antialias=True)
    if size == VIEW:
        parts = [base, images]
    else:
        large = images if size == 2 * VIEW else functional.resize(images, [2 * VIEW, 2 * VIEW], bicubic, antialias=True)
        corners = [(top, left) for top in (0, VIEW) for left in (0, VIEW)]
        parts = [base] + [large[..., top : top + VIEW, left : left + VIEW] for top, left in corners]
    stacked = torch.stack(parts, dim=1).float()
    mean = torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1) * 255
    deviation = torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1) * 255
    return (stacked - mean) / deviation


def visual_token_count(size: int) -> int:
    """Placeholders of one square picture: base view, tiles, and a newline after each row.

    Parameters
    ----------
    size
        Height and width in pixels.

    Returns
    -------
    int
    """
    side = GRID if size == VIEW else 2 * GRID
    return GRID * GRID + side * (side + 1)


def tile_positions(cells: Sequence[tuple[int, int]], size: int) -> list[int]:
    """Where the patches of grid cells lie among the visual tokens of a picture (tiles only, not the base view).

    Parameters
    ----------
    cells
        (row, column) of 16-pixel cells.
    size
        Height and width of the picture in pixels.

    Returns
    -------
    list of int
    """
    side = GRID if size == VIEW else 2 * GRID
    offsets = [(down, right) for down in (0, 1) for right in (0, 1)]
    return [
        GRID * GRID + (2 * row + down) * (side + 1) + 2 * column + right
        for row, column in cells
        for down, right in offsets
    ]


def patch_labels(scene: Scene) -> np.ndarray:
    """Colour, shape, texture and digit under every patch of every view, 0 for none.

    Parameters
    ----------
    scene
        A 3 x 3 or 6 x 6 scene.

    Returns
    -------
    numpy.ndarray
        [views, 36, 4]; where the base view is too coarse for the texture and the digit, -100.
    """
    grid = np.zeros((scene.cells, scene.cells, 4), np.int64)
    for cell, item in scene.objects.items():
        grid[cell] = np.array(item) + 1
    fine = grid.repeat(2, axis=0).repeat(2, axis=1)
    if len(fine) == GRID:
        return np.stack([fine, fine]).reshape(2, GRID * GRID, 4)
    grid[..., 2:] = IGNORED
    tiles = [fine[top : top + GRID, left : left + GRID] for top in (0, GRID) for left in (0, GRID)]
    return np.stack([grid, *tiles]).reshape(5, GRID * GRID, 4)


@dataclass(frozen=True)
class Exchange:
    """A question as token numbers: the words, the one-word answer, and the cells to look at."""

    words: tuple[int, ...]
    answer: int
    cells: tuple[tuple[int, int], ...]
    type: str


def encode(question: str, answer: str, cells: tuple[tuple[int, int], ...], kind: str) -> Exchange:
    """Turn a question into token numbers, as the tokenizer would.

    Parameters
    ----------
    question, answer
        Texts; the answer is one word.
    cells
        What has to be looked at.
    kind
        Question type.

    Returns
    -------
    Exchange
    """
    words = tuple(WORDS[word] for word in question.replace("?", " ?").split())
    return Exchange(words, WORDS[answer], cells, kind)


def encode_question(question: Question) -> Exchange:
    """Turn a question about a scene into token numbers.

    Parameters
    ----------
    question
        From `questions.ask`.

    Returns
    -------
    Exchange
    """
    return encode(question.text, question.answer, question.cells, question.type)


def pack(exchanges: list[list[Exchange]], size: int, independent: bool) -> tuple[dict[str, torch.Tensor], list]:
    """Pack the questions of each picture behind it, padded on the right.

    Parameters
    ----------
    exchanges
        Questions of each picture.
    size
        Height and width of the pictures in pixels.
    independent
        True: each question sees the picture and itself only, as if asked alone. False: a dialogue of several turns.

    Returns
    -------
    batch : dict
        `input_ids`, `labels`, `position_ids`, `attention_mask` (boolean, [batch, 1, length, length]), and for every
        question its row (`guide_rows`), the position before its answer (`guide_positions`) and which visual tokens
        show its cells (`guide_targets`, [questions, visual tokens]).
    types : list of str
        Question type of each row of `guide_rows`.
    """
    visual = visual_token_count(size)
    prefix = [WORDS[BEGIN], *USER_TURN, *[WORDS[IMAGE]] * visual]
    rows, types, guide = [], [], []
    for row, asked in enumerate(exchanges):
        ids, labels = list(prefix), [IGNORED] * len(prefix)
        positions, blocks = list(range(len(prefix))), [0] * len(prefix)
        for turn, exchange in enumerate(asked):
            opening = USER_TURN if turn and not independent else []
            words = [*opening, *exchange.words, *ASSISTANT_TURN]
            start = len(prefix) if independent else len(ids)
            guide.append((row, len(ids) + len(words) - 1, exchange.cells))
            types.append(exchange.type)
            ids += [*words, exchange.answer, WORDS[END]]
            labels += [IGNORED] * len(words) + [exchange.answer, WORDS[END]]
            positions += range(start, start + len(words) + 2)
            blocks += [turn + 1] * (len(words) + 2)
        rows.append((ids, labels, positions, blocks))
    longest = max(len(row[0]) for row in rows)
    padded = [
        torch.tensor([row[part] + [filler] * (longest - len(row[part])) for row in rows])
        for part, filler in enumerate((WORDS["<pad>"], IGNORED, 0, -1))
    ]
    batch = {"input_ids": padded[0], "labels": padded[1], "position_ids": padded[2]}
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    if independent:
        blocks = padded[3]
        seen = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
        batch["attention_mask"] = (seen & causal)[:, None]
    else:
        batch["attention_mask"] = causal.expand(len(rows), 1, longest, longest)
        batch["position_ids"] = torch.arange(longest).expand(len(rows), longest).contiguous()
    targets = torch.zeros(len(guide), visual)
    for number, (_, _, cells) in enumerate(guide):
        targets[number, tile_positions(cells, size)] = 1
    batch["guide_rows"] = torch.tensor([entry[0] for entry in guide])
    batch["guide_positions"] = torch.tensor([entry[1] for entry in guide])
    batch["guide_targets"] = targets
    return batch, types


def stack_images(images: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Make the model inputs of equally sized square pictures.

    Parameters
    ----------
    images
        RGB, uint8, height x width x 3.

    Returns
    -------
    dict
        `pixel_values` and `image_sizes`.
    """
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    sizes = torch.tensor([[image.shape[0], image.shape[1]] for image in images])
    return {"pixel_values": views(stacked), "image_sizes": sizes}
