"""What an encoder of text and image leaves and costs, from the counts that its method states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from PIL import Image

from lmms_tokendrop.benchmark.encoder_accounting import built_reducer, patch_embedding_macs, planned_macs
from lmms_tokendrop.benchmark.meter_accounting import meter_macs
from lmms_tokendrop.images import with_a_patch
from lmms_tokendrop.modeling.core.fusion_plan import plan_apart
from lmms_tokendrop.modeling.core.reducer import TokenReducer
from lmms_tokendrop.plan.plans import Macs, Plan, Request
from lmms_tokendrop.plan.targets import Target

TEXT_TOKENS = 32
"""As PuMer's measurements have them."""

CROPPED = "Images are cut to squares of {side} pixels, whatever their size."
JOINT = "Text and image merge with each other; what merges is counted as the image's."


def plan_encoder(target: Target, reduction: Mapping[str, Any], request: Request) -> Plan:
    """Plan ViLT or METER.

    Parameters
    ----------
    target
        The model.
    reduction
        Options of its reduction.
    request
        One image or none, and a text.

    Raises
    ------
    ValueError
        If an option is wrong, for several images, for `visual_tokens`, for a text that is too long, or for another
        architecture.
    """
    name, options = target.architecture.name, dict(reduction)
    if name not in ENCODERS:
        raise ValueError(f"target={target.name!r} is a {name}; allowed: models that write, {', '.join(ENCODERS)}")
    if request.visual_tokens is not None:
        raise ValueError(f"visual_tokens are those of a decoder's layers; for {name} give an image's size")
    if len(request.images) > 1:
        raise ValueError(f"image was given {len(request.images)} times; allowed for {name}: once")
    config = target.config(options)
    text = text_of(request)
    if not 1 <= text <= config.max_position_embeddings:
        raise ValueError(f"text_tokens={text}; allowed for {name}: 1 to {config.max_position_embeddings}")
    image_size, parts = ENCODERS[name]
    size = size_of(target, config, request)
    reducer, patches = built_reducer(name, config, options, size)
    tower, received, left = _tokens(config, reducer, text, patches)
    assumed = [CROPPED.format(side=config.image_size)] if request.images and image_size is square else []
    return Plan(
        given=options,
        token_reduction=config.token_reduction,
        visual_tokens=tuple(image for _, image in received),
        text_tokens=tuple(words for words, _ in received),
        average_input=fmean(image for _, image in received),
        average_release=fmean(image for _, image in left),
        stages={**tower, **_stages(received, left)},
        macs={part: Macs.of(macs) for part, macs in parts(config, options, text, size).items()},
        assumed=(*assumed, *([JOINT] if reducer.joint else [])),
    )


def text_of(request: Request) -> int:
    """Tokens of a request's text."""
    return (request.before or 0) + (TEXT_TOKENS if request.behind is None else request.behind)


def size_of(target: Target, config: Any, request: Request) -> tuple[int, int]:
    """Height and width of a request's image as the encoder gets it."""
    image_size, _ = ENCODERS[target.architecture.name]
    return image_size(config, request.images[0]) if request.images else square(config, ())


def vilt_image_size(config: Any, image: tuple[int, int]) -> tuple[int, int]:
    """Height and width that ViLT's processor gives an image of some width and height."""
    from transformers import ViltImageProcessor

    processor = ViltImageProcessor(size={"shortest_edge": config.image_size}, size_divisor=config.patch_size)
    picture = with_a_patch(Image.new("RGB", image), processor)
    height, width = processor(picture, return_tensors="pt")["pixel_values"].shape[-2:]
    return height, width


def square(config: Any, image: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of METER's images."""
    return config.image_size, config.image_size


def vilt_parts(config: Any, reduction: dict, text: int, size: tuple[int, int]) -> dict[str, int]:
    """MACs of ViLT by part."""
    _, patches = built_reducer("vilt", config, reduction, size)
    embedding = patch_embedding_macs(config, patches)
    return {"patch embedding": embedding, "encoder": planned_macs(config, reduction, text, size) - embedding}


def meter_parts(config: Any, reduction: dict, text: int, size: tuple[int, int]) -> dict[str, int]:
    """MACs of METER by part."""
    macs = meter_macs(config, reduction, text, size)
    return {"text": macs.text, "vision": macs.vision, "cross-modal": macs.cross_modal}


ENCODERS: dict[str, tuple[Callable, Callable]] = {"vilt": (vilt_image_size, vilt_parts), "meter": (square, meter_parts)}
"""By architecture: the size of its images, and its parts."""

Counted = list[tuple[int, int]]
Stages = dict[str, dict[str, int]]


def _tokens(config: Any, reducer: TokenReducer, text: int, patches: int) -> tuple[Stages, Counted, Counted]:
    """What a tower leaves if it leaves fewer; text and image tokens that each layer receives, and that it leaves."""
    image, stages = 1 + patches, {}
    if reducer.stages_at("vision"):
        _, tower = plan_apart(reducer, 0, image, config.vision_config.num_hidden_layers, "vision")
        image = tower[-1][1]
        stages["vision tower"] = {"text": 0, "tokens": image}
    return stages, *plan_apart(reducer, text, image, config.num_hidden_layers)


def _stages(received: Counted, left: Counted) -> Stages:
    """By layer, what is left behind a drop."""
    found: Stages = {}
    now = received[0]
    for layer, pair in enumerate(zip(received, left, strict=True)):
        for place, counts in zip(("before", "inside"), pair, strict=True):
            if counts != now:
                found[f"{place} layer {layer}"] = dict(zip(("text", "tokens"), counts, strict=True))
                now = counts
    return found
