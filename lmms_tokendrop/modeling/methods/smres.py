"""A smaller input, the baseline without any method."""

from dataclasses import dataclass

from ..core.options import Options, option
from ..core.reducer import Host, TokenReducer


@dataclass
class ImageSizeOptions(Options):
    """The size of images."""

    image_size: int | None = option(
        None,
        "Side in pixels to which images of the model's own size, and others in proportion, are reduced; "
        "smres: five sixths; to whole patches, of which there must be fewer.",
        low=1,
    )


class SmallerResolution(TokenReducer):
    """Scale images down before the patch embedding; position embeddings are interpolated to the smaller grid."""

    Options = ImageSizeOptions

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.image_size = options.image_size or host.image_size * 5 // 6
