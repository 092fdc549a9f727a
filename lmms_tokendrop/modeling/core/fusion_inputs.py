"""Checks of what ViLT and METER are given, with the argument's name and what is allowed."""

from typing import Any

import torch

from .fusion_tokens import check_padded_right

FORMS = {
    "input_ids": "[batch, length]",
    "inputs_embeds": "[batch, length, channels]",
    "text_embeds": "[batch, length, channels]",
    "pixel_values": "[batch, 3, height, width]",
    "image_embeds": "[batch, length, channels]",
}
FORMS_OF_SEVERAL = {
    "pixel_values": "[batch, images, 3, height, width]",
    "image_embeds": "[batch, images, length, channels]",
}


def only_one(arguments: dict[str, torch.Tensor | None], forms: dict[str, str] = FORMS) -> torch.Tensor:
    """The one of some arguments that is given; a ValueError if none is, several are, or it has another form."""
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"You must specify exactly one of {' or '.join(arguments)}")
    [name] = given
    value: Any = arguments[name]
    if value.ndim != len(forms[name].split(",")):
        raise ValueError(f"{name} of shape {tuple(value.shape)}; allowed: {forms[name]}")
    return value


def check_tensor(name: str, value: Any, shape: tuple[int, ...], floating: bool | None = None) -> None:
    """Raise a ValueError unless an argument is a tensor of a shape, of floating point numbers or of whole ones."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} of type {type(value).__name__}; allowed: a tensor of shape {tuple(shape)}")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} of shape {tuple(value.shape)}; allowed: {tuple(shape)}")
    if floating is not None and value.is_floating_point() != floating:
        raise ValueError(f"{name} of {value.dtype}; allowed: {'floating point' if floating else 'whole'} numbers")


def check_inputs(
    texts: dict[str, torch.Tensor | None], images: dict[str, torch.Tensor | None], attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """The attention mask, all ones by default, of inputs that fit each other; else a ValueError says what is wrong.

    Parameters
    ----------
    texts, images : dict[str, torch.Tensor or None]
        By name, the arguments of which exactly one is to be given.
    attention_mask : torch.Tensor or None
        `[batch, length]`, 0 for padding, on the right.
    """
    text, image = only_one(texts), only_one(images)
    if len(text) != len(image):
        raise ValueError(f"{len(text)} texts and {len(image)} images; their numbers must be equal")
    if attention_mask is None:
        return torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
    check_tensor("attention_mask", attention_mask, text.shape[:2])
    check_padded_right(attention_mask)
    return attention_mask


def checked_seeds(sample_seeds: torch.Tensor | None, batch: int) -> torch.Tensor:
    """Seeds `[batch]`, 0 by default; a ValueError if there are not as many, or if they are not whole."""
    if sample_seeds is None:
        return torch.zeros(batch, dtype=torch.long)
    check_tensor("sample_seeds", sample_seeds, (batch,), floating=False)
    return sample_seeds


def check_pixel_mask(
    pixel_mask: torch.Tensor | None, pixel_values: torch.Tensor | None, image_embeds: torch.Tensor | None
) -> None:
    """Raise a ValueError unless a mask of images has an entry per pixel, or per token of `image_embeds`."""
    if pixel_mask is not None and pixel_values is not None:
        check_tensor("pixel_mask", pixel_mask, (len(pixel_values), *pixel_values.shape[-2:]))
    elif pixel_mask is not None and image_embeds is not None:
        check_tensor("pixel_mask", pixel_mask.flatten(1), image_embeds.shape[:2])
