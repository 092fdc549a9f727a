"""Where tokens lie: an independent account of unpadding and newlines, and the processor's counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PATCH_SIZE, tiny_config, tiny_processor
from transformers import LlavaNextModel
from transformers.image_processing_utils import select_best_resolution

from lmms_tokendrop.modeling.core.tile_layout import NEWLINE, anyres_layout

IMAGE_SIZES = (28, 35, 42)
CONFIGS = {size: tiny_config(image_size=size) for size in IMAGE_SIZES}
PROCESSORS = {size: tiny_processor(config) for size, config in CONFIGS.items()}


def expected_layout(config, height: int, width: int) -> list[tuple[int, int, int]]:
    """`(tile, cell, line)` of every token: the base view, then the rows of the unpadded image and their newlines."""
    view = config.vision_config.image_size
    side = view // PATCH_SIZE
    best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    down, across = best_height // view, best_width // view
    rows, columns = range(down * side), range(across * side)
    if width / height > len(columns) / len(rows):
        filled = int(round(height * (len(columns) / width), 7))
        cut = (len(rows) - filled) // 2
        rows = rows[cut : len(rows) - cut]
    else:
        filled = int(round(width * (len(rows) / height), 7))
        cut = (len(columns) - filled) // 2
        columns = columns[cut : len(columns) - cut]
    tokens = [(0, cell, -1) for cell in range(side * side)]
    for line, row in enumerate(rows):
        tiles = [1 + (row // side) * across + column // side for column in columns]
        tokens += [
            (tile, (row % side) * side + column % side, line) for tile, column in zip(tiles, columns, strict=True)
        ]
        tokens.append((tiles[-1] if tiles else tokens[-1][0], NEWLINE, line))
    return tokens


def layout_of(config, sizes: list[tuple[int, int]]):
    """The layout under test, with the stock model's packing."""
    view = config.vision_config.image_size
    tiles = []
    for height, width in sizes:
        best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
        tiles.append(1 + (best_height // view) * (best_width // view))

    class Packer:
        pack_image_features = LlavaNextModel.pack_image_features

    packer = Packer()
    packer.config = config

    def pack(features, newline):
        return packer.pack_image_features(features, torch.tensor(sizes), "default", newline)[0]

    return anyres_layout(pack, tiles, view // PATCH_SIZE)


def rows_of(image, side):
    """`(tile, cell, line)` of every token of an image."""
    cells = torch.where(image.newline, NEWLINE, image.row * side + image.column)
    return list(zip(image.tile.tolist(), cells.tolist(), image.line.tolist(), strict=True))


@settings(max_examples=150)
@given(st.sampled_from(IMAGE_SIZES), st.integers(8, 400), st.integers(8, 400))
def test_the_layout_is_unpadding_and_newlines(image_size, height, width):
    (image,) = layout_of(CONFIGS[image_size], [(height, width)])
    assert rows_of(image, image_size // PATCH_SIZE) == expected_layout(CONFIGS[image_size], height, width)


@settings(max_examples=100)
@given(st.sampled_from(IMAGE_SIZES), st.integers(8, 400), st.integers(8, 400))
def test_the_layout_has_as_many_tokens_as_the_processor_writes_placeholders(image_size, height, width):
    placeholders = PROCESSORS[image_size]._get_number_of_features(height, width, image_size, image_size) - 1
    assert len(layout_of(CONFIGS[image_size], [(height, width)])[0]) == placeholders


def test_several_images_are_laid_out_apart():
    sizes = [(40, 60), (90, 30), (50, 50)]
    for number, (image, size) in enumerate(zip(layout_of(CONFIGS[42], sizes), sizes, strict=True)):
        (alone,) = layout_of(CONFIGS[42], [size])
        assert rows_of(image, 42 // PATCH_SIZE) == rows_of(alone, 42 // PATCH_SIZE)
        assert image.image.eq(number).all()


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@torch.no_grad()
def test_provenance_names_the_feature_of_each_row(workshop, image_size):
    """Features packed by the stock model equal the tower's features at the named tile and cell."""
    model = workshop.reduced("none", image_size=image_size)
    inputs = workshop.inputs([("<image> a", [(60, 40)]), ("<image> a", [(37, 101)])], image_size=image_size)
    output = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    stock = workshop.stock(image_size=image_size).model
    side = image_size // PATCH_SIZE
    for image, (rows, tokens) in enumerate(zip(output.pooler_output, output.visual_tokens, strict=True)):
        hidden = stock.vision_tower(inputs["pixel_values"][image], output_hidden_states=True).hidden_states[-2]
        features = stock.multi_modal_projector(hidden[:, 1:])
        patches = ~tokens.newline
        cells = tokens.row * side + tokens.column
        torch.testing.assert_close(rows[patches], features[tokens.tile[patches], cells[patches]])
        assert torch.equal(rows[~patches], stock.image_newline.expand(int((~patches).sum()), -1))
        assert tokens.column[~patches].eq(side).all()
