"""The options of a reduction in an encoder of text and image, and the methods that read them."""

from dataclasses import dataclass
from typing import ClassVar

from .fusion_stages import FusionReducer, NoFusionReduction
from .reduction_options import ReductionOptions, option

FUSION_REDUCERS: dict[str, type[FusionReducer]] = {"none": NoFusionReduction}

FUSION_PRESETS: dict[str, dict] = {}


@dataclass
class FusionReductionConfig(ReductionOptions):
    """Options of a reduction in an encoder of text and image. Build it with :meth:`from_dict`, which checks everything.

    The help text of each option is in its field's metadata; the README prints them as a table.
    """

    reducers: ClassVar[dict] = FUSION_REDUCERS
    presets: ClassVar[dict] = FUSION_PRESETS

    method: str = option("none", "The method.", allowed=tuple(FUSION_REDUCERS))

    def build(self, num_layers: int, hidden_size: int, image_size: int) -> FusionReducer:
        """The reducer for an encoder.

        Parameters
        ----------
        num_layers, hidden_size : int
            Blocks and channels of the encoder.
        image_size : int
            Side of the images that the encoder was made for.
        """
        return self.reducers[self.method](self, num_layers, hidden_size, image_size)
