"""A picture of the image tokens that a model kept."""

from __future__ import annotations

from typing import Any

from PIL import Image

from lmms_tokendrop.visualize import draw_kept_patches, draw_kept_tokens

PICTURE = "kept_tokens.png"


def kept_picture(image: Image.Image, report: Any, config: Any) -> Image.Image:
    """Draw what each stage left of an image.

    Parameters
    ----------
    image
        The first image of the request.
    report
        What the model said of it: a `TokenReport`, a `FusionReport`, or a list of those per image.
    config
        The model's configuration.
    """
    first = report[0] if isinstance(report, list) else report
    if hasattr(first, "kept"):
        return draw_kept_tokens(image, first.kept, config)
    return draw_kept_patches(image, first)
