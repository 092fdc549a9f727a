"""Vision-language models that drop visual tokens, for transformers and lmms-eval.

Importing the package imports no torch and changes nothing elsewhere: the public names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SOURCES = {
    "LlavaNextTokenDropConfig": "lmms_tokendrop.modeling.modeling_llava_next_tokendrop",
    "LlavaNextTokenDropModel": "lmms_tokendrop.modeling.modeling_llava_next_tokendrop",
    "LlavaNextTokenDropForConditionalGeneration": "lmms_tokendrop.modeling.modeling_llava_next_tokendrop",
    "StagedCache": "lmms_tokendrop.modeling.staged_cache",
    "TokenReductionConfig": "lmms_tokendrop.modeling.token_reducer",
    "pocket_path": "lmms_tokendrop.pocket.registry",
}

__all__ = [
    "LlavaNextTokenDropConfig",
    "LlavaNextTokenDropForConditionalGeneration",
    "LlavaNextTokenDropModel",
    "StagedCache",
    "TokenReductionConfig",
    "__version__",
    "pocket_path",
]

if TYPE_CHECKING:
    from lmms_tokendrop.modeling.modeling_llava_next_tokendrop import (
        LlavaNextTokenDropConfig,
        LlavaNextTokenDropForConditionalGeneration,
        LlavaNextTokenDropModel,
    )
    from lmms_tokendrop.modeling.staged_cache import StagedCache
    from lmms_tokendrop.modeling.token_reducer import TokenReductionConfig
    from lmms_tokendrop.pocket.registry import pocket_path


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_SOURCES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
