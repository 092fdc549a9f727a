"""The entry point to reducers: their options, their registry and the protocol they follow."""

from .fusion_reduction_config import FUSION_PRESETS, FUSION_REDUCERS, FusionReductionConfig
from .reduction_options import ReductionOptions
from .stages import Keep, Stage, StageContext, TokenReducer, VisionContext
from .token_reduction_config import PRESETS, REDUCERS, TokenReductionConfig

REDUCTION_CONFIGS: dict[str, type[ReductionOptions]] = {
    "llava_next": TokenReductionConfig,
    "vilt": FusionReductionConfig,
}
"""The options, with their methods, of each architecture."""

__all__ = [
    "FUSION_PRESETS",
    "FUSION_REDUCERS",
    "PRESETS",
    "REDUCERS",
    "REDUCTION_CONFIGS",
    "FusionReductionConfig",
    "Keep",
    "ReductionOptions",
    "Stage",
    "StageContext",
    "TokenReducer",
    "TokenReductionConfig",
    "VisionContext",
]
