"""Every picture that enters a model goes through one function, which reads it as a viewer would or refuses it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

WHITE = 255
RANGES = (255, 65535)
"""Largest values of grey pictures with 8 and 16 bits."""

VILT_LONGEST = 1333 / 800
"""Longest side that ViLT's image processor leaves, in times of the shortest."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that end early, hold something else than they say, or far more pixels than pictures."""


@contextmanager
def whole_files() -> Iterator[None]:
    """Let Pillow refuse files that end early in this block: lmms-eval tells it to fill what is missing with grey."""
    filled, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = filled


def to_rgb(image: Any) -> Image.Image:
    """Return a picture in RGB, 8 bits a channel, as a viewer shows it.

    It is turned as its EXIF orientation says, and what is transparent shows white. Grey values of more than 8 bits
    (modes ``I;16``, ``I`` and ``F``) are scaled by the smallest range that holds them: 0 to 255 or 0 to 65535, for
    floats also 0 to 1. Of an animation the current frame counts.

    Parameters
    ----------
    image : PIL.Image.Image
        A picture of any mode.

    Returns
    -------
    PIL.Image.Image
        A new picture of mode ``RGB``.

    Raises
    ------
    ValueError
        If `image` is no picture or has no pixels, if its file cannot be read, or if its values are negative, above
        65535 or not finite.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: a {type(image).__name__}; allowed: a PIL.Image.Image")
    if not image.width or not image.height:
        raise ValueError(f"image: {image.width} x {image.height} pixels; allowed: at least 1 x 1")
    try:
        with whole_files():
            image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            image = _eight_bits(image)
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    except UNREADABLE as error:
        raise ValueError(f"image: {error}") from error
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale wide grey values to 0 to 255; the one that its file calls transparent becomes white."""
    values = np.asarray(image)
    least, most = values.min(), values.max()
    ranges = (1, *RANGES) if image.mode == "F" else RANGES
    if not (np.isfinite(values).all() and least >= 0 and most <= ranges[-1]):
        raise ValueError(f"values from {least} to {most}; allowed for mode {image.mode}: 0 to {ranges[-1]}")
    scale = next(largest for largest in ranges if most <= largest)
    grey = np.rint(values.astype(np.float64) * (255 / scale))
    grey[values == image.info.get("transparency", -1)] = WHITE
    return Image.fromarray(grey.astype(np.uint8))


def with_a_patch(image: Image.Image, image_processor: Any) -> Image.Image:
    """Widen a picture of which ViLT's image processor would leave less than one row or column of patches.

    That processor limits the longer side and rounds both down to whole patches, so that nothing is left of a picture
    longer than about 20 times its other side. Such a picture is scaled to the length that it would have, one patch
    wide; the processor then keeps that size.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB picture.
    image_processor
        ViLT's, or one that takes every picture.

    Returns
    -------
    PIL.Image.Image
        The picture itself where a patch or more is left.
    """
    patch = getattr(image_processor, "size_divisor", None)
    if patch is None or not image_processor.do_resize:
        return image
    longest = int(VILT_LONGEST * image_processor.size["shortest_edge"])
    if int(min(image.size) * longest / max(image.size) + 0.5) >= patch:
        return image
    length = longest // patch * patch
    size = (length, patch) if image.width > image.height else (patch, length)
    return image.resize(size, Image.Resampling(image_processor.resample))
