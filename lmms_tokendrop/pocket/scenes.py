"""Dense generated scenes: objects on a grid of cells, over a textured ground with distractors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from lmms_tokendrop.pocket.sprites import CELL, sprite
from lmms_tokendrop.pocket.vocabulary import (
    COLOR_NAMES,
    DIGIT_NAMES,
    GROUND_NAMES,
    SHAPE_NAMES,
    TEXTURE_NAMES,
)

DENSE_CELLS = 6
DENSE_OBJECTS = (8, 12)
ATTRIBUTE_NAMES: dict[str, list[str]] = {
    "color": COLOR_NAMES,
    "shape": SHAPE_NAMES,
    "texture": TEXTURE_NAMES,
    "digit": DIGIT_NAMES,
}


class SceneObject(NamedTuple):
    """One object by the indices of its attributes."""

    color: int
    shape: int
    texture: int
    digit: int

    def name(self, attribute: str) -> str:
        """Word of an attribute, such as ``"red"`` for ``"color"``."""
        return ATTRIBUTE_NAMES[attribute][getattr(self, attribute)]


@dataclass(frozen=True)
class Scene:
    """What is in a picture.

    Attributes
    ----------
    cells
        Cells along each side; a cell is 16 pixels.
    objects
        The object in each occupied (row, column).
    ground
        Index into `GROUND_NAMES`.
    pixel_seed
        Seed of everything in the picture that carries no answer: tints, noise, distractors, jitter.
    """

    cells: int
    objects: dict[tuple[int, int], SceneObject]
    ground: int
    pixel_seed: int


def make_scene(rng: np.random.Generator, cells: int = DENSE_CELLS, objects: tuple[int, int] = DENSE_OBJECTS) -> Scene:
    """Draw a random scene.

    Parameters
    ----------
    rng
        Source of randomness; the same state gives the same scene.
    cells
        Cells along each side of the square picture.
    objects
        Fewest and most objects.

    Returns
    -------
    Scene
    """
    count = int(rng.integers(objects[0], objects[1] + 1))
    places = rng.permutation(cells * cells)[:count].tolist()
    limits = [len(names) for names in ATTRIBUTE_NAMES.values()]
    values = rng.integers(0, limits, size=(count, len(limits))).tolist()
    placed = {divmod(place, cells): SceneObject(*value) for place, value in zip(places, values, strict=True)}
    return Scene(cells, placed, int(rng.integers(len(GROUND_NAMES))), int(rng.integers(2**62)))


def render_array(scene: Scene) -> np.ndarray:
    """Draw a scene.

    Parameters
    ----------
    scene
        What to draw.

    Returns
    -------
    numpy.ndarray
        RGB, uint8, (16 * cells) squared.
    """
    rng = np.random.default_rng(scene.pixel_seed)
    size = scene.cells * CELL
    canvas = _ground(rng, size, GROUND_NAMES[scene.ground])
    _distractors(rng, canvas)
    offsets = rng.integers((0, -1), (2, 2), size=(len(scene.objects), 2)).tolist()
    tints = rng.integers(-12, 13, size=(len(scene.objects), 3), dtype=np.int16)
    for ((row, column), item), (down, right), tint in zip(scene.objects.items(), offsets, tints, strict=True):
        top = min(row * CELL + down, size - CELL)
        left = min(max(column * CELL + right, 0), size - CELL)
        pixels, mask = sprite(*item)
        np.copyto(canvas[top : top + CELL, left : left + CELL], pixels + tint, where=mask)
    canvas += rng.integers(-7, 8, size=canvas.shape, dtype=np.int8)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture.

    Parameters
    ----------
    scene
        What to draw.

    Returns
    -------
    PIL.Image.Image
    """
    return Image.fromarray(render_array(scene))


def _ground(rng: np.random.Generator, size: int, name: str) -> np.ndarray:
    canvas = np.empty((size, size, 3), np.int16)
    canvas[:] = rng.integers(30, 100, 3)
    if name == "striped":
        band = ((np.arange(size) // rng.integers(4, 8)) % 2 * 40).astype(np.int16)
        canvas += band[None, :, None] if rng.random() < 0.5 else band[:, None, None]
    elif name == "dotted":
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            canvas[row::6, column::6] += 70
    elif name == "noisy":
        canvas += rng.integers(-45, 46, size=(size, size, 1), dtype=np.int8)
    return canvas


def _distractors(rng: np.random.Generator, canvas: np.ndarray) -> None:
    size = len(canvas)
    amount = size // 12
    corners = rng.integers(0, size - 3, size=(amount, 2)).tolist()
    tints = rng.integers(0, 256, size=(amount, 3)).astype(np.int16)
    for number, ((top, left), tint) in enumerate(zip(corners, tints, strict=True)):
        if number % 4 == 0:
            length = int(rng.integers(8, 24))
            canvas[top, left : left + length] = tint
        elif number % 4 == 1:
            length = int(rng.integers(8, 24))
            canvas[top : top + length, left] = tint
        else:
            canvas[top : top + 2, left : left + 3] = tint
