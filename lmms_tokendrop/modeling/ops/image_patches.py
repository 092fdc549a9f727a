"""Patches of images of several sizes in one batch: their order, positions, and smaller inputs."""

import torch
from transformers.utils import logging

from .eager_parts import on_host
from .token_ops import padded_indices

logger = logging.get_logger(__name__)


@on_host
def place_patches(mask: torch.Tensor, limit: int | None, random_subset: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Valid patches of each image in raster order; images with more than `limit` give a warning.

    Parameters
    ----------
    mask : torch.BoolTensor
        `[batch, height, width]`, True for patches inside the image.
    limit : int or None
        Most patches of an image.
    random_subset : bool
        Whether an image with more patches keeps a random subset, as in training; otherwise they are evenly spaced.

    Returns
    -------
    tuple[torch.LongTensor, torch.BoolTensor]
        `[batch, patches]` raster indices, padded with 0 on the right, and which are not padding.
    """
    inside = mask.flatten(1).clone()
    for row, count in enumerate(inside.sum(-1).tolist()):
        if limit is not None and count > limit:
            logger.warning_once(
                f"an image has more patches than max_image_length={limit}; only so many of them are read"
            )
            chosen = torch.randperm(count)[:limit] if random_subset else torch.arange(limit) * count // limit
            places = inside[row].nonzero()[:, 0][chosen.to(inside.device)]
            inside[row] = False
            inside[row, places] = True
    return padded_indices(inside, "right")


@on_host
def position_grid(embeddings: torch.Tensor, mask: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings interpolated to each image's own grid, as ViLT does.

    Parameters
    ----------
    embeddings : torch.Tensor
        `[1, 1 + side * side, channels]`, CLS first.
    mask : torch.BoolTensor
        `[batch, height, width]`, True inside the image.
    side : int
        Side of the grid that was learned.

    Returns
    -------
    torch.Tensor
        `[batch, height * width, channels]`, zero outside the image.
    """
    _, height, width = mask.shape
    learned = embeddings[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    grids: dict[tuple[int, int], torch.Tensor] = {}
    sizes = _sizes(mask)
    for rows, columns in dict.fromkeys(sizes):
        grid = torch.nn.functional.interpolate(learned, size=(rows, columns), mode="bilinear", align_corners=True)
        grids[rows, columns] = torch.nn.functional.pad(grid, (0, width - columns, 0, height - rows))
    return torch.cat([grids[size] for size in sizes]).flatten(2).transpose(1, 2)


def grid_side(length: float, patch_size: int, scale: float = 1.0) -> int:
    """Patches along a side of `length` pixels after scaling: to the nearest whole number, and at least one."""
    return max(1, round(length * scale / patch_size))


@on_host
def shrink_images(
    pixel_values: torch.Tensor, pixel_mask: torch.Tensor, scale: float, patch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale each image of a batch down, to sides that are whole patches. Padding does not bleed into images.

    Pixels are interpolated in float32, whatever their dtype.

    Parameters
    ----------
    pixel_values : torch.Tensor
        `[batch, 3, height, width]`.
    pixel_mask : torch.Tensor
        `[batch, height, width]`, 0 where an image is padded on the right or below.
    scale : float
        Factor on each side, at most 1.
    patch_size : int
        Side of a patch in pixels.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        Smaller `pixel_values` and `pixel_mask`.
    """
    sizes = _sizes(pixel_mask.bool())
    smaller = [tuple(grid_side(side, patch_size, scale) * patch_size for side in size) for size in sizes]
    canvas = (max(rows for rows, _ in smaller), max(columns for _, columns in smaller))
    values = pixel_values.new_zeros(*pixel_values.shape[:2], *canvas)
    inside = pixel_mask.new_zeros(len(pixel_mask), *canvas)
    for number, ((rows, columns), (new_rows, new_columns)) in enumerate(zip(sizes, smaller, strict=True)):
        image = pixel_values[number : number + 1, :, :rows, :columns]
        values[number, :, :new_rows, :new_columns] = torch.nn.functional.interpolate(
            image.float(), size=(new_rows, new_columns), mode="bilinear", antialias=True
        )[0]
        inside[number, :new_rows, :new_columns] = 1
    return values, inside


def _sizes(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Rows and columns of each image `[batch, height, width]`; a ValueError unless it starts at the first of both."""
    if not bool(mask[:, 0, 0].all()):
        raise ValueError("pixel_mask: images must be padded on the right and below, and none may be empty")
    return list(zip(mask[:, :, 0].sum(1).tolist(), mask[:, 0].sum(1).tolist(), strict=True))
