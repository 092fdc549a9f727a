"""What differs between the supported versions of transformers: the name of the cache.

Up to transformers 5.23 models take and return it as `past_key_values`, from 5.24 on as `cache`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from transformers import LlamaModel

CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"
"""Name of the cache in the arguments and outputs of the installed transformers."""


def cache_argument(cache: Any) -> dict[str, Any]:
    """Keyword argument, or field of an output, that carries `cache`."""
    return {CACHE: cache}


def cache_of(output: Any) -> Any:
    """The cache of a model's or of `generate`'s output."""
    return getattr(output, CACHE)


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
