"""Pictures of the visual tokens that each stage leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from lmms_tokendrop.images import to_rgb

GAP = 12
CAPTION = 34
DROPPED = (250, 250, 250)
INK = (40, 40, 40)
Cell = tuple[int, int, int]
"""Tile, row and column of a patch; tile 0 is the base view."""


def draw_kept_tokens(
    image: Image.Image,
    kept: dict[str, list[list[tuple[int, int, int, int]]]],
    config: Any,
    row: int = 0,
    size: int = 240,
) -> Image.Image:
    """Draw, stage by stage, which patches of an image are left.

    Parameters
    ----------
    image
        The picture that the model saw.
    kept
        `TokenReport.kept` of the request.
    config
        The LLaVA's configuration.
    row
        Sequence of the batch; its first image is drawn.
    size
        Height of a view in pixels.

    Returns
    -------
    PIL.Image.Image
        One column for the whole input and one per stage: the tiles above, if the model cuts images, and the base view
        below. Patches that left are blank.
    """
    columns: dict[str, Collection[Cell] | None] = {"input": None}
    for name, rows in kept.items():
        cells = {place[1:] for place in rows[row] if place[0] == 0}
        columns[f"{name}\n{len(cells)} tokens"] = cells
    return draw_columns(image, columns, config, size)


def draw_columns(
    image: Image.Image, columns: Mapping[str, Collection[Cell] | None], config: Any, size: int = 240
) -> Image.Image:
    """Draw an image as often as there are columns, each with some of its patches.

    Parameters
    ----------
    image
        The picture that the model saw.
    columns
        Caption of a column, of two lines at most, and the (tile, row, column) of the patches that it shows; None for
        all.
    config
        The LLaVA's configuration.
    size
        Height of a view in pixels.

    Returns
    -------
    PIL.Image.Image
        The columns from left to right: the caption, the tiles, the base view. Patches that are not shown are blank.
    """
    image = to_rgb(image)
    side = config.vision_config.image_size // config.vision_config.patch_size
    views = _views(image, config, size)
    width = views[0][0].width + GAP
    height = CAPTION + sum(view.height + GAP for view, _ in views) - GAP
    picture = Image.new("RGB", (width * len(columns) - GAP, height), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for number, (caption, cells) in enumerate(columns.items()):
        left, top = number * width, CAPTION
        pen.multiline_text((left, 0), caption, fill=INK, font=font, spacing=1)
        for view, grid in views:
            shown = view if cells is None else _blank_patches(view, cells, grid, side)
            picture.paste(shown, (left, top))
            top += view.height + GAP
    return picture


def _views(image: Image.Image, config: Any, size: int) -> list[tuple[Image.Image, tuple[int, int] | None]]:
    """What a model sees of an image: its tiles, with their rows and columns, if it cuts images, and the base view."""
    if not hasattr(config, "image_grid_pinpoints"):
        return [(ImageOps.fit(image, (size, size)), None)]
    grid = get_anyres_image_grid_shape(
        (image.height, image.width), config.image_grid_pinpoints, config.vision_config.image_size
    )
    tiles = _letterbox(image, grid[1] * size // grid[0], size)
    return [(tiles, tuple(grid)), (image.resize((size // 2, size // 2)), None)]


def _blank_patches(view: Image.Image, cells: Collection[Cell], grid: tuple[int, int] | None, side: int) -> Image.Image:
    """A view with every patch outside `cells` blanked."""
    if grid is None:
        return _blank(view, {place[1:] for place in cells if place[0] == 0}, (side, side))
    fine = {_fine_cell(place, grid[1], side) for place in cells if place[0] > 0}
    return _blank(view, fine, (grid[0] * side, grid[1] * side))


def _fine_cell(place: Cell, tiles_per_row: int, side: int) -> tuple[int, int]:
    tile, row, column = place
    return (tile - 1) // tiles_per_row * side + row, (tile - 1) % tiles_per_row * side + column


def _letterbox(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image as large as it fits, centred, as any-resolution preprocessing places it."""
    scale = min(width / image.width, height / image.height)
    resized = image.resize((round(image.width * scale), round(image.height * scale)))
    canvas = Image.new("RGB", (width, height), "black")
    canvas.paste(resized, ((width - resized.width) // 2, (height - resized.height) // 2))
    return canvas


def _blank(view: Image.Image, cells: set[tuple[int, int]], shape: Sequence[int]) -> Image.Image:
    """The view with every cell outside `cells` blanked."""
    view = view.copy()
    pen = ImageDraw.Draw(view)
    rows, columns = shape
    for row in range(rows):
        for column in range(columns):
            if (row, column) not in cells:
                top, left = row * view.height / rows, column * view.width / columns
                pen.rectangle((left, top, left + view.width / columns - 1, top + view.height / rows - 1), fill=DROPPED)
    return view


def draw_kept_patches(image: Image.Image, report: Any, row: int = 0, size: int = 240) -> Image.Image:
    """Draw which patches an encoder of text and image has left after each layer where some left or merged.

    Parameters
    ----------
    image
        The picture that the model saw, whole.
    report
        `FusionReport` of the request.
    row
        Row of the batch.
    size
        Height in pixels.

    Returns
    -------
    PIL.Image.Image
        One column for the whole input and one per layer. Patches that left, or merged into another, are blank.
    """
    columns = [("input", {(line, column) for line, column in report.patches[row].tolist() if line >= 0})]
    shape = [max(cell[side] for cell in columns[0][1]) + 1 for side in (0, 1)]
    for name, rows in report.kept.items():
        cells = {place[2:] for place in rows[row]}
        if len(cells) < len(columns[-1][1]):
            columns.append((f"{name}\n{len(cells)} patches", cells))
    view = to_rgb(image).resize((size * shape[1] // shape[0], size))
    picture = Image.new("RGB", ((view.width + GAP) * len(columns) - GAP, CAPTION + size), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for number, (caption, cells) in enumerate(columns):
        left = number * (view.width + GAP)
        pen.multiline_text((left, 0), caption, fill=INK, font=font, spacing=1)
        picture.paste(_blank(view, cells, shape), (left, CAPTION))
    return picture
