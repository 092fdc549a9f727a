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
    "FusionReductionConfig": "lmms_tokendrop.modeling.fusion_reduction_config",
    "ViltTokenDropConfig": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "ViltTokenDropForImageAndTextRetrieval": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "ViltTokenDropForImagesAndTextClassification": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "ViltTokenDropForQuestionAnswering": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "ViltTokenDropForVisualEntailment": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "ViltTokenDropModel": "lmms_tokendrop.modeling.modeling_vilt_tokendrop",
    "pocket_path": "lmms_tokendrop.pocket.registry",
}

__all__ = [
    "FusionReductionConfig",
    "LlavaNextTokenDropConfig",
    "LlavaNextTokenDropForConditionalGeneration",
    "LlavaNextTokenDropModel",
    "StagedCache",
    "TokenReductionConfig",
    "ViltTokenDropConfig",
    "ViltTokenDropForImageAndTextRetrieval",
    "ViltTokenDropForImagesAndTextClassification",
    "ViltTokenDropForQuestionAnswering",
    "ViltTokenDropForVisualEntailment",
    "ViltTokenDropModel",
    "__version__",
    "pocket_path",
]

if TYPE_CHECKING:
    from lmms_tokendrop.modeling.fusion_reduction_config import FusionReductionConfig
    from lmms_tokendrop.modeling.modeling_llava_next_tokendrop import (
        LlavaNextTokenDropConfig,
        LlavaNextTokenDropForConditionalGeneration,
        LlavaNextTokenDropModel,
    )
    from lmms_tokendrop.modeling.modeling_vilt_tokendrop import (
        ViltTokenDropConfig,
        ViltTokenDropForImageAndTextRetrieval,
        ViltTokenDropForImagesAndTextClassification,
        ViltTokenDropForQuestionAnswering,
        ViltTokenDropForVisualEntailment,
        ViltTokenDropModel,
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
