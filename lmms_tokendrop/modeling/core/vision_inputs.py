"""Checks of what a model is given of images, with the argument's name and what is allowed."""

from typing import Any

import torch


def feature_layers(layers: Any, depth: int, width: int, projected: int) -> list[int]:
    """Hidden states of the vision tower whose features are concatenated.

    Parameters
    ----------
    layers : int or list[int]
        Of the argument `vision_feature_layer`, 0 being the embeddings; negative ones count from the last.
    depth, width : int
        Blocks and channels of the tower.
    projected : int
        Channels that the projector reads.

    Raises
    ------
    ValueError
        If there is no such layer, or if the projector reads another number of layers.
    """
    chosen = list(layers) if isinstance(layers, list | tuple) else [layers]
    whole = all(isinstance(layer, int) and not isinstance(layer, bool) for layer in chosen)
    if not whole or not all(-depth - 1 <= layer <= depth for layer in chosen):
        raise ValueError(f"vision_feature_layer={layers!r}; allowed: {-depth - 1} to {depth}, or a list of such")
    if len(chosen) * width != projected:
        raise ValueError(
            f"vision_feature_layer={layers!r}: the projector of this model reads {projected // width} layers"
        )
    return chosen


def last_read(layers: int | list[int], depth: int) -> int:
    """The deepest of the hidden states that `vision_feature_layer` names, 0 to `depth`."""
    return max(layer % (depth + 1) for layer in ([layers] if isinstance(layers, int) else layers))


def check_features(strategy: str | None, per_request: list[int] | None, images: int) -> None:
    """Raise a ValueError unless features are those of whole tiles and images belong to sequences.

    Parameters
    ----------
    strategy : str or None
        `vision_feature_select_strategy`; tiles are laid out as grids of patches, in which a CLS has no place.
    per_request : list[int] or None
        Images of each sequence.
    images : int
        Number of images.
    """
    if strategy != "default":
        raise ValueError(
            f"vision_feature_select_strategy={strategy!r}; allowed: 'default', as tiles are grids without CLS"
        )
    if per_request is not None and sum(per_request) != images:
        raise ValueError(f"images_per_request={per_request}; allowed: numbers that add up to {images}")


def check_questions(reducer: Any, questions: list | None, images: int) -> None:
    """Raise a ValueError where a method reads questions, unless there is one for each image."""
    given = None if questions is None else len(questions)
    if "questions" in reducer.needs and given != images:
        raise ValueError(
            f"questions of {given} images; method={reducer.options.method!r} reads one for each of {images}: give "
            "input_ids, or questions to get_image_features"
        )


def check_image_sizes(pixel_values: torch.Tensor, image_sizes: Any) -> None:
    """Raise a ValueError unless tiles and sizes fit each other.

    Parameters
    ----------
    pixel_values : torch.Tensor
        `[images, tiles, 3, height, width]` or `[tiles, 3, height, width]`.
    image_sizes : torch.LongTensor or list
        `[images, 2]`.
    """
    if pixel_values.dim() not in (4, 5):
        raise ValueError(f"pixel_values of shape {tuple(pixel_values.shape)}, expected 4 or 5 dimensions")
    sizes = image_sizes.tolist() if isinstance(image_sizes, torch.Tensor) else image_sizes
    if sizes is None or any(isinstance(size, int) or len(size) != 2 for size in sizes):
        raise ValueError(f"image_sizes={image_sizes!r}; allowed: height and width of each image, [images, 2]")
    if pixel_values.dim() == 5 and len(image_sizes) != len(pixel_values):
        raise ValueError(f"image_sizes of {len(image_sizes)} images; pixel_values has {len(pixel_values)}")


def check_encoded(encoded: dict) -> None:
    """Raise a ValueError unless `mm_encoder_outputs` has what the model's `get_image_features` gives."""
    if set(encoded) - {"image"}:
        raise ValueError(f"mm_encoder_outputs with {sorted(encoded)}; allowed: 'image'")
    if "image" in encoded and not hasattr(encoded["image"], "visual_tokens"):
        raise ValueError("mm_encoder_outputs: 'image' must be what this model's get_image_features returned")
