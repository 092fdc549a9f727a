"""The entry point to reducers: their options, their registry and the protocol they follow."""

from .fusion_reduction_config import FUSION_PRESETS, FUSION_REDUCERS, FusionReductionConfig
from .meter_reduction_config import METER_PRESETS, METER_REDUCERS, MeterReductionConfig
from .reduction_options import ReductionOptions
from .stages import Keep, Stage, StageContext, TokenReducer, VisionContext
from .token_reduction_config import PRESETS, REDUCERS, TokenReductionConfig

REDUCTION_CONFIGS: dict[str, type[ReductionOptions]] = {
    "llava_next": TokenReductionConfig,
    "vilt": FusionReductionConfig,
    "meter": MeterReductionConfig,
}
"""The options, with their methods, of each architecture."""

__all__ = [
    "FUSION_PRESETS",
    "FUSION_REDUCERS",
    "METER_PRESETS",
    "METER_REDUCERS",
    "PRESETS",
    "REDUCERS",
    "REDUCTION_CONFIGS",
    "FusionReductionConfig",
    "Keep",
    "MeterReductionConfig",
    "ReductionOptions",
    "Stage",
    "StageContext",
    "TokenReducer",
    "TokenReductionConfig",
    "VisionContext",
]
