"""A picture of the image tokens that a model kept."""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from lmms_tokendrop.visualize import draw_kept_patches, draw_kept_tokens

PICTURE = "kept_tokens.png"


def kept_picture(image: Image.Image, report: Any, model: PreTrainedModel) -> Image.Image:
    """Draw what each stage left of an image.

    Parameters
    ----------
    image
        The first image of the request.
    report
        What the model said of it.
    model
        The model.
    """
    if model.can_generate():
        return draw_kept_tokens(image, report.kept, model.config)
    return draw_kept_patches(image, report)
