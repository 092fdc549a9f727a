"""What a method leaves in an encoder of text and image, from counts alone; and the methods built for one."""

from typing import Any

import torch

from ..ops.image_patches import grid_side
from .applying import check_stages
from .fusion_selection import FusionCounts
from .options import Options, Reductions
from .reducer import Host, TokenReducer
from .switching import Switchable


def build_fusion_reducer(reductions: Reductions, options: Options, config: Any) -> TokenReducer:
    """The reducer for an encoder.

    Parameters
    ----------
    reductions : Reductions
        The methods of the architecture.
    options : Options
        Of one of them.
    config : PreTrainedConfig
        The encoder's: its blocks (METER: pairs of cross-modal layers), channels, sides of images and of patches, its
        vision tower if it has one, and positions of the text if it reads any.

    Raises
    ------
    ValueError
        If a stage can't act, or if nothing would happen.
    """
    vision_layers = getattr(getattr(config, "vision_config", None), "num_hidden_layers", 0)
    in_pairs = getattr(config, "in_pairs", False)
    host = Host(config.num_hidden_layers, config.hidden_size, config.image_size, vision_layers, in_pairs)
    reducer = reductions.build(options, host)
    offered = {"fusion": config.num_hidden_layers, **({"vision": vision_layers} if vision_layers else {})}
    check_stages(reducer, offered)
    if reducer.image_size is not None:
        check_smaller(reducer.image_size, config.image_size, config.patch_size)
    if reducer.stages():
        check_reduces(reducer, config)
    return reducer


class ReducedEncoder(Switchable):
    """An encoder of text and image with a reducer; comes before the stock class in the bases."""

    def build_reducer(self, options: Options) -> TokenReducer:
        """The reducer of checked options; see :func:`build_fusion_reducer`."""
        return build_fusion_reducer(self.config_class.reduction_class, options, self.config)


class CountDependsOnData(ValueError):
    """A stage states no count, so what it leaves is known only when it runs."""


class NothingReduced(ValueError):
    """A method whose ratios leave everything."""


def plan(reducer: TokenReducer, text: int, image: int, num_layers: int) -> tuple[list[int], list[int]]:
    """Tokens that the attention and the FFN of each layer process, from the counts of the input alone.

    Raises
    ------
    CountDependsOnData
        If the method states no count.
    """
    attention, ffn = plan_apart(reducer, text, image, num_layers)
    return [sum(pair) for pair in attention], [sum(pair) for pair in ffn]


def plan_apart(
    reducer: TokenReducer, text: int, image: int, num_layers: int, place: str = "fusion"
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The same as pairs of text and image tokens; in a vision tower with `place="vision"`."""
    now = first = (torch.tensor([text]), torch.tensor([image]))
    stages = {(stage.layer, stage.point): stage for stage in reducer.stages_at(place)}
    lengths: dict[str, list[tuple[int, int]]] = {"before_block": [], "before_ffn": []}
    for layer in range(num_layers):
        for point in lengths:
            stage = stages.get((layer, point))
            if stage is not None:
                now = reducer.count(stage, FusionCounts(*now, *first))
                if now is None:
                    raise CountDependsOnData(f"{type(reducer).__name__}: what {stage} leaves depends on the data")
            lengths[point].append((int(now[0]), int(now[1])))
    return lengths["before_block"], lengths["before_ffn"]


def check_smaller(image_size: int, native_size: int, patch_size: int) -> None:
    """Raise a ValueError unless images of `native_size` pixels that shrink to `image_size` have fewer patches."""
    whole = grid_side(native_size, patch_size)
    smaller = [size for size in range(1, native_size) if grid_side(native_size, patch_size, size / native_size) < whole]
    if image_size not in smaller:
        allowed = f"1 to {smaller[-1]}" if smaller else "none, the image has one patch"
        raise ValueError(
            f"image_size={image_size}: an image of the encoder's own size, {native_size}, would still have {whole} "
            f"patches of {patch_size} pixels a side, so nothing would happen; allowed: {allowed}"
        )


def check_reduces(reducer: TokenReducer, config: Any) -> None:
    """Raise NothingReduced if no stage takes a token of an image of the encoder's own size and of the longest text.

    Methods whose counts depend on the data are taken as they are.
    """
    image = 1 + grid_side(config.image_size, config.patch_size) ** 2
    text = getattr(config, "max_position_embeddings", 0)
    try:
        with torch.device("cpu"):  # models are built on the meta device, which has no numbers
            _, tower = plan_apart(reducer, 0, image, max(reducer.host.vision_layers, 1), "vision")
            _, left = plan_apart(reducer, text, tower[-1][1], config.num_hidden_layers)
    except CountDependsOnData:
        return
    if left[-1] == (text, image):
        raise NothingReduced(
            f"{reducer.options.method}: its ratios leave all of {image} image and {text} text tokens, so nothing would "
            "happen"
        )
