"""Drawing of single objects: a coloured, textured shape with a digit plate in its lower right quarter."""

from __future__ import annotations

from functools import cache

import numpy as np

from lmms_tokendrop.pocket.vocabulary import COLOR_NAMES, COLORS, SHAPE_NAMES, TEXTURE_NAMES

CELL = 16
PLATE_TOP, PLATE_LEFT = 7, 8
GLYPH_ROWS = [
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
]
GLYPHS = np.array([[[int(bit) for bit in row] for row in rows.split()] for rows in GLYPH_ROWS], dtype=bool)


@cache
def shape_mask(shape: int) -> np.ndarray:
    """Pixels of a cell that a shape covers, without its digit plate.

    Parameters
    ----------
    shape
        Index into `SHAPE_NAMES`.

    Returns
    -------
    numpy.ndarray
        Boolean, 16 x 16.
    """
    y, x = np.mgrid[0:CELL, 0:CELL] - (CELL - 1) / 2
    distance = x**2 + y**2
    masks = {
        "square": (abs(x) <= 6.5) & (abs(y) <= 6.5),
        "circle": distance <= 46,
        "triangle": (y >= -6.5) & (y <= 6.5) & (abs(x) <= (y + 7) * 0.55),
        "cross": ((abs(x) <= 2.5) | (abs(y) <= 2.5)) & (abs(x) <= 7) & (abs(y) <= 7),
        "diamond": abs(x) + abs(y) <= 8,
        "ring": (distance <= 54) & (distance >= 20),
    }
    return masks[SHAPE_NAMES[shape]]


@cache
def sprite(color: int, shape: int, texture: int, digit: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one object.

    Parameters
    ----------
    color, shape, texture, digit
        Indices into the name lists of `vocabulary`.

    Returns
    -------
    pixels : numpy.ndarray
        Colours, 16 x 16 x 3, int16.
    mask : numpy.ndarray
        Which pixels the object covers, 16 x 16 x 1.
    """
    y, x = np.mgrid[0:CELL, 0:CELL]
    mask = shape_mask(shape).copy()
    shade = np.ones((CELL, CELL, 1))
    name = TEXTURE_NAMES[texture]
    if name == "hatched":
        shade[(x + y) % 4 < 2] = 0.45
    elif name == "spotted":
        shade[(x % 4 < 2) & (y % 4 < 2)] = 0.2
    pixels = np.array(COLORS[COLOR_NAMES[color]]) * shade
    mask[PLATE_TOP : PLATE_TOP + 9, PLATE_LEFT : PLATE_LEFT + 7] = True
    pixels[PLATE_TOP : PLATE_TOP + 9, PLATE_LEFT : PLATE_LEFT + 7] = 0
    pixels[PLATE_TOP + 1 : PLATE_TOP + 8, PLATE_LEFT + 1 : PLATE_LEFT + 6][GLYPHS[digit]] = 255
    return pixels.astype(np.int16), mask[..., None]
