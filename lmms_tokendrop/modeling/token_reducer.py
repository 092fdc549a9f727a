"""The options of each architecture."""

from .methods import reductions

REDUCTION_CONFIGS = {name: reductions(name) for name in ("llava_next", "vilt", "meter")}
TokenReductionConfig, FusionReductionConfig, MeterReductionConfig = REDUCTION_CONFIGS.values()
