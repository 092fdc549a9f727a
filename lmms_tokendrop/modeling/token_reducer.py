"""The entry point to reducers: their options, their registry and the protocol they follow."""

from .stages import Keep, Stage, StageContext, TokenReducer, VisionContext
from .token_reduction_config import PRESETS, REDUCERS, TokenReductionConfig

__all__ = [
    "PRESETS",
    "REDUCERS",
    "Keep",
    "Stage",
    "StageContext",
    "TokenReducer",
    "TokenReductionConfig",
    "VisionContext",
]
