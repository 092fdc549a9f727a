"""Load the processor of a checkpoint, and compare it with the model before anything runs."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from transformers import CONFIG_MAPPING, AutoProcessor, PreTrainedConfig, ProcessorMixin

from lmms_tokendrop.catalogue import architecture


def load_processor(
    path: str, config: PreTrainedConfig, *, trust_remote_code: bool = False, **location: Any
) -> ProcessorMixin:
    """Load a processor that fits a model.

    Parameters
    ----------
    path
        Folder or Hub id.
    config
        The reduced model's, which also says how tiles are packed.
    trust_remote_code
        Let the processor be one whose code is in the checkpoint.
    **location
        Where on the Hub, as ``from_pretrained`` takes it.

    Returns
    -------
    ProcessorMixin
        See :func:`fit_processor`.
    """
    options: Any = config
    family = architecture(config.model_type.removesuffix("_tokendrop"))
    reference = family.processor_for(options.token_reduction)
    if trust_remote_code and reference == family.processor:
        return fit_processor(AutoProcessor.from_pretrained(path, trust_remote_code=True, **location), config)
    saved_type = PreTrainedConfig.get_config_dict(path, **location)[0].get("model_type")
    # the tokenizer's loader looks for a configuration, and warns of types that transformers does not have
    unknown = {} if saved_type in CONFIG_MAPPING else {"config": config}
    processor: Any = resolve_name(reference).from_pretrained(
        path, trust_remote_code=trust_remote_code, **unknown, **location
    )
    return fit_processor(processor, config)


def fit_processor(processor: Any, config: Any) -> Any:
    """Fill in what a processor does not state from the model's configuration, and compare what it states.

    Parameters
    ----------
    processor
        Changed in place.
    config
        The model's configuration.

    Returns
    -------
    ProcessorMixin
        The processor.

    Raises
    ------
    ValueError
        If they contradict each other; the message names the field and both values.
    """
    words = config.get_text_config().vocab_size
    if len(processor.tokenizer) > words:
        raise ValueError(f"processor: its tokenizer has {len(processor.tokenizer)} tokens; the model has {words}")
    if hasattr(config, "vision_feature_select_strategy"):
        _fit_placeholders(processor, config)
        return processor
    images, patch = processor.image_processor, config.patch_size
    divisor = getattr(images, "size_divisor", None)
    for size in _sides(images) if divisor is None else [divisor]:
        if size % patch:
            raise ValueError(f"processor: images are scaled to multiples of {size}; the model's patch_size is {patch}")
    return processor


def _fit_placeholders(processor: Any, config: Any) -> None:
    """Fit a processor that writes a placeholder for each feature of an image."""
    vision = config.vision_config
    placeholders = {
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": int(vision.model_type == "clip_vision_model"),  # CLS
    }
    if processor.patch_size is None:  # saved before there were such fields; the last one's default is a number
        processor.num_additional_image_tokens = None
    for name, expected in placeholders.items():
        if getattr(processor, name) is None:
            setattr(processor, name, expected)
        _compare(name, getattr(processor, name), expected)
    _compare("image_token_id", processor.image_token_id, config.image_token_id)
    for side in _sides(processor.image_processor):
        _compare("image size", side, vision.image_size)
    if hasattr(config, "image_grid_pinpoints"):
        pinpoints = [list(map(int, point)) for point in processor.image_processor.image_grid_pinpoints]
        _compare("image_grid_pinpoints", pinpoints, [list(point) for point in config.image_grid_pinpoints])


def _compare(name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"processor: {name}={found!r}; the model's configuration says {expected!r}")


def _sides(images: Any) -> list[int]:
    """Sides in pixels of the images that an image processor makes."""
    last = images.crop_size if images.do_center_crop else images.size
    named = {name: last.get(name) if isinstance(last, dict) else getattr(last, name, None) for name in _SIDES}
    return [side for side in named.values() if side is not None]


_SIDES = ("height", "width", "shortest_edge")
