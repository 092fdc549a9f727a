"""Vision-language models that drop visual tokens, for transformers and lmms-eval.

Importing the package imports no torch and changes nothing elsewhere: the public names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SOURCES = {
    "LlavaNextTokenDropConfig": "lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop",
    "LlavaNextTokenDropModel": "lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop",
    "LlavaNextTokenDropForConditionalGeneration": "lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop",
    "LlavaTokenDropConfig": "lmms_tokendrop.modeling.architectures.modeling_llava_tokendrop",
    "LlavaTokenDropModel": "lmms_tokendrop.modeling.architectures.modeling_llava_tokendrop",
    "LlavaTokenDropForConditionalGeneration": "lmms_tokendrop.modeling.architectures.modeling_llava_tokendrop",
    "StagedCache": "lmms_tokendrop.modeling.core.staged_cache",
    "TokenReductionConfig": "lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop",
    "FusionReductionConfig": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "MeterReductionConfig": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterConfig": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterForImageAndTextRetrieval": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterForImagesAndTextClassification": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterForPreTraining": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterForQuestionAnswering": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterForVisualEntailment": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterModel": "lmms_tokendrop.modeling.architectures.modeling_meter",
    "MeterTokenDropConfig": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterTokenDropForImageAndTextRetrieval": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterTokenDropForImagesAndTextClassification": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterTokenDropForQuestionAnswering": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterTokenDropForVisualEntailment": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "MeterTokenDropModel": "lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop",
    "cache_of": "lmms_tokendrop.modeling.core.transformers_compat",
    "meter_processor": "lmms_tokendrop.modeling.architectures.processing_meter",
    "ViltTokenDropConfig": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "ViltTokenDropForImageAndTextRetrieval": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "ViltTokenDropForImagesAndTextClassification": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "ViltTokenDropForQuestionAnswering": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "ViltTokenDropForVisualEntailment": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "ViltTokenDropModel": "lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop",
    "set_token_reduction": "lmms_tokendrop.modeling.core.switching",
    "use_token_reduction": "lmms_tokendrop.modeling.core.switching",
    "pocket_path": "lmms_tokendrop.pocket.registry",
}

__all__ = [
    "FusionReductionConfig",
    "LlavaNextTokenDropConfig",
    "LlavaNextTokenDropForConditionalGeneration",
    "LlavaNextTokenDropModel",
    "LlavaTokenDropConfig",
    "LlavaTokenDropForConditionalGeneration",
    "LlavaTokenDropModel",
    "MeterConfig",
    "MeterForImageAndTextRetrieval",
    "MeterForImagesAndTextClassification",
    "MeterForPreTraining",
    "MeterForQuestionAnswering",
    "MeterForVisualEntailment",
    "MeterModel",
    "MeterReductionConfig",
    "MeterTokenDropConfig",
    "MeterTokenDropForImageAndTextRetrieval",
    "MeterTokenDropForImagesAndTextClassification",
    "MeterTokenDropForQuestionAnswering",
    "MeterTokenDropForVisualEntailment",
    "MeterTokenDropModel",
    "StagedCache",
    "TokenReductionConfig",
    "ViltTokenDropConfig",
    "ViltTokenDropForImageAndTextRetrieval",
    "ViltTokenDropForImagesAndTextClassification",
    "ViltTokenDropForQuestionAnswering",
    "ViltTokenDropForVisualEntailment",
    "ViltTokenDropModel",
    "__version__",
    "cache_of",
    "meter_processor",
    "pocket_path",
    "set_token_reduction",
    "use_token_reduction",
]

if TYPE_CHECKING:
    from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import (
        LlavaNextTokenDropConfig,
        LlavaNextTokenDropForConditionalGeneration,
        LlavaNextTokenDropModel,
        TokenReductionConfig,
    )
    from lmms_tokendrop.modeling.architectures.modeling_llava_tokendrop import (
        LlavaTokenDropConfig,
        LlavaTokenDropForConditionalGeneration,
        LlavaTokenDropModel,
    )
    from lmms_tokendrop.modeling.architectures.modeling_meter import (
        MeterConfig,
        MeterForImageAndTextRetrieval,
        MeterForImagesAndTextClassification,
        MeterForPreTraining,
        MeterForQuestionAnswering,
        MeterForVisualEntailment,
        MeterModel,
    )
    from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import (
        MeterReductionConfig,
        MeterTokenDropConfig,
        MeterTokenDropForImageAndTextRetrieval,
        MeterTokenDropForImagesAndTextClassification,
        MeterTokenDropForQuestionAnswering,
        MeterTokenDropForVisualEntailment,
        MeterTokenDropModel,
    )
    from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import (
        FusionReductionConfig,
        ViltTokenDropConfig,
        ViltTokenDropForImageAndTextRetrieval,
        ViltTokenDropForImagesAndTextClassification,
        ViltTokenDropForQuestionAnswering,
        ViltTokenDropForVisualEntailment,
        ViltTokenDropModel,
    )
    from lmms_tokendrop.modeling.architectures.processing_meter import meter_processor
    from lmms_tokendrop.modeling.core.staged_cache import StagedCache
    from lmms_tokendrop.modeling.core.switching import set_token_reduction, use_token_reduction
    from lmms_tokendrop.modeling.core.transformers_compat import cache_of
    from lmms_tokendrop.pocket.registry import pocket_path


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_SOURCES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
