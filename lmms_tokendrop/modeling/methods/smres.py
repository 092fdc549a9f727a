"""A smaller input, the baseline without any method."""

from ..core.fusion_selection import ImageSizeOptions
from ..core.reducer import Host, TokenReducer


class SmallerResolution(TokenReducer):
    """Scale images down before the patch embedding; position embeddings are interpolated to the smaller grid."""

    Options = ImageSizeOptions

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.image_size = options.image_size or host.image_size * 5 // 6
