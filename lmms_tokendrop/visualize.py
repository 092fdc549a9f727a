"""Pictures of the visual tokens that each stage leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from lmms_tokendrop.images import to_rgb

GAP = 12
CAPTION = 34
DROPPED = (250, 250, 250)
INK = (40, 40, 40)
MERGED = (0, 90, 200)
KEY = (200, 0, 90)
COLD, HOT = (25, 20, 70), (255, 225, 60)
Cell = tuple[int, int, int]
"""Tile, row and column of a patch; tile 0 is the base view."""


@dataclass(frozen=True)
class View:
    """What a model sees of an image.

    Parameters
    ----------
    picture
        Its pixels.
    shape
        Rows and columns of patches.
    cells
        Row and column in the view of each patch.
    """

    picture: Image.Image
    shape: tuple[int, int]
    cells: Mapping[Cell, tuple[int, int]]

    def box(self, place: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a place in the view, both ends within."""
        (rows, columns), (width, height) = self.shape, self.picture.size
        top, left = place[0] * height / rows, place[1] * width / columns
        return left, top, left + width / columns - 1, top + height / rows - 1


@dataclass(frozen=True)
class Panel:
    """What is drawn of the patches of an image.

    Parameters
    ----------
    caption
        Two lines at most.
    owner
        The patch that each patch is part of, itself if it is there by itself; one that is missing left. None: all stay.
    keys
        Patches that are marked.
    heat
        From 0 to 1, drawn in place of the pixels where it is given.
    share
        How much of a patch is there, 1 if not given.
    """

    caption: str
    owner: Mapping[Cell, Cell] | None = None
    keys: frozenset[Cell] = frozenset()
    heat: Mapping[Cell, float] | None = None
    share: Mapping[Cell, float] = field(default_factory=dict)


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
    panels = [Panel("input")]
    for name, rows in kept.items():
        cells = {place[1:] for place in rows[row] if place[0] == 0}
        panels.append(Panel(f"{name}\n{len(cells)} tokens", {cell: cell for cell in cells}))
    return draw_panels(llava_views(image, config, size), panels)


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
    [view] = encoder_views(image, patches_of(report, row), size)
    panels, before = [Panel("input")], len(view.cells)
    for name, rows in report.kept.items():
        cells = {(0, *place[2:]) for place in rows[row]}
        if len(cells) < before:
            panels.append(Panel(f"{name}\n{len(cells)} patches", {cell: cell for cell in cells}))
        before = len(cells)
    return draw_panels([view], panels)


def patches_of(report: Any, row: int = 0) -> list[tuple[int, int]]:
    """Row and column of each patch of a row of a `FusionReport`, in their order."""
    return [(line, column) for line, column in report.patches[row].tolist() if line >= 0]


def encoder_views(image: Image.Image, patches: Sequence[tuple[int, int]], size: int) -> list[View]:
    """The only view of an encoder that has patches at these rows and columns."""
    rows, columns = (max(place[side] for place in patches) + 1 for side in (0, 1))
    picture = to_rgb(image).resize((max(size * columns // rows, 1), size))
    return [View(picture, (rows, columns), {(0, *place): place for place in patches})]


def llava_views(image: Image.Image, config: Any, size: int) -> list[View]:
    """What a LLaVA sees: the tiles at their place in the image, if it cuts images, and the base view."""
    image, side = to_rgb(image), config.vision_config.image_size // config.vision_config.patch_size
    base = {(0, row, column): (row, column) for row in range(side) for column in range(side)}
    if not hasattr(config, "image_grid_pinpoints"):
        return [View(ImageOps.fit(image, (size, size)), (side, side), base)]
    grid = get_anyres_image_grid_shape(
        (image.height, image.width), config.image_grid_pinpoints, config.vision_config.image_size
    )
    tiles = _letterbox(image, grid[1] * size // grid[0], size)
    cells = {
        (1 + down * grid[1] + right, row, column): (down * side + row, right * side + column)
        for down in range(grid[0])
        for right in range(grid[1])
        for _, row, column in base
    }
    return [
        View(tiles, (grid[0] * side, grid[1] * side), cells),
        View(image.resize((size // 2, size // 2)), (side, side), base),
    ]


def draw_panels(
    views: Sequence[View], panels: Sequence[Panel], columns: int | None = None, narrowest: int = 0
) -> Image.Image:
    """Draw panels from left to right, so many in a row and none narrower: the caption, then the views."""
    columns = columns or len(panels)
    width = max(narrowest, *(view.picture.width for view in views)) + GAP
    height = CAPTION + sum(view.picture.height + GAP for view in views)
    lines = -(-len(panels) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(panels)) - GAP, height * lines - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, panel in enumerate(panels):
        left, top = number % columns * width, number // columns * height
        pen.multiline_text((left, top), panel.caption, fill=INK, font=font, spacing=1)
        sheet.paste(stacked(paint(view, panel) for view in views), (left, top + CAPTION))
    return sheet


def stacked(pictures: Iterable[Image.Image]) -> Image.Image:
    """Pictures one below the other."""
    pictures = list(pictures)
    size = max(picture.width for picture in pictures), sum(picture.height + GAP for picture in pictures) - GAP
    sheet, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + GAP
    return sheet


def paint(view: View, panel: Panel) -> Image.Image:
    """Draw the patches of a view: blank where they left, with a line around those that merged, and marked if key."""
    picture = view.picture.copy()
    pen = ImageDraw.Draw(picture)
    owner = {cell: cell for cell in view.cells} if panel.owner is None else panel.owner
    for cell, place in view.cells.items():
        box = view.box(place)
        if panel.heat is not None and cell in panel.heat:
            pen.rectangle(box, fill=_between(COLD, HOT, panel.heat[cell]))
        if cell not in owner:
            pen.rectangle(box, fill=DROPPED)
        elif panel.share.get(cell, 1) < 1:
            corner = round(box[0]), round(box[1]), round(box[2]) + 1, round(box[3]) + 1
            part = picture.crop(corner)
            picture.paste(Image.blend(Image.new("RGB", part.size, DROPPED), part, panel.share[cell]), corner)
    sizes = Counter(owner.values())
    groups = {place: owner[cell] for cell, place in view.cells.items() if cell in owner}
    for place, group in groups.items():
        if sizes[group] > 1:
            _outline(pen, view, place, groups)
    for cell in panel.keys & view.cells.keys():
        pen.rectangle(view.box(view.cells[cell]), outline=KEY, width=2)
    return picture


def _outline(pen: Any, view: View, place: tuple[int, int], groups: Mapping[tuple[int, int], Cell]) -> None:
    """Draw a line where a patch that merged meets one of another group."""
    left, top, right, bottom = view.box(place)
    row, column = place
    sides = {
        (row - 1, column): (left, top, right, top),
        (row + 1, column): (left, bottom, right, bottom),
        (row, column - 1): (left, top, left, bottom),
        (row, column + 1): (right, top, right, bottom),
    }
    for beside, line in sides.items():
        if groups.get(beside) != groups[place]:
            pen.line(line, fill=MERGED, width=2)


def _between(first: tuple[int, ...], last: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(a + (b - a) * share) for a, b in zip(first, last, strict=True))


def _letterbox(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image as large as it fits, centred, as any-resolution preprocessing places it."""
    scale = min(width / image.width, height / image.height)
    resized = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    canvas = Image.new("RGB", (width, height), "black")
    canvas.paste(resized, ((width - resized.width) // 2, (height - resized.height) // 2))
    return canvas
