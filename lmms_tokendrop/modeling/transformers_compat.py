"""What differs between the supported versions of transformers: the names of the cache and of the image features.

Up to transformers 5.23 models take and return the cache as `past_key_values`, and LLaVA-NeXT returns its image features
as `image_hidden_states`. From 5.24 on these are `cache` and `image_outputs`.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from transformers import LlamaModel
from transformers.models.llava_next.modeling_llava_next import LlavaNextModelOutputWithPast

CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"
"""Name of the cache in the arguments and outputs of the installed transformers."""

_RETURNS_IMAGE_OUTPUTS = "image_outputs" in {field.name for field in fields(LlavaNextModelOutputWithPast)}


def cache_argument(cache: Any) -> dict[str, Any]:
    """Keyword argument, or field of an output, that carries `cache`."""
    return {CACHE: cache}


def cache_of(output: Any) -> Any:
    """The cache of a model's or of `generate`'s output."""
    return getattr(output, CACHE)


def image_fields(images: Any, features: Any) -> dict[str, Any]:
    """Field of a LLaVA-NeXT output that carries the image features.

    Parameters
    ----------
    images : ModelOutput or None
        The vision tower's output, with `pooler_output`: a tensor `[placeholders, channels]` per image.
    features : torch.FloatTensor or None
        `[placeholders of all images, channels]`.
    """
    return {"image_outputs": images} if _RETURNS_IMAGE_OUTPUTS else {"image_hidden_states": features}


def copied_image_fields(output: Any) -> dict[str, Any]:
    """The same field, taken from another output."""
    name = "image_outputs" if _RETURNS_IMAGE_OUTPUTS else "image_hidden_states"
    return {name: getattr(output, name)}


def takes_cache(forward: Callable) -> Callable:
    """Decorate a forward pass whose parameter is `cache`: it takes `past_key_values` for it too, whatever the version.

    The decorated function raises ValueError if both are given.
    """

    @functools.wraps(forward)
    def wrapper(self, *args, past_key_values=None, **kwargs):
        if past_key_values is not None:
            if kwargs.get("cache") is not None:
                raise ValueError("cache and past_key_values are one argument; give one of them")
            kwargs["cache"] = past_key_values
        return forward(self, *args, **kwargs)

    return wrapper
