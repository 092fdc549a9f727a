"""Pictures of every mode against pixels computed by hand."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_meter import tiny_meter_processor
from tiny_models import tiny_image
from tiny_vilt import tiny_vilt_processor

from lmms_tokendrop.images import to_rgb, with_a_patch

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def pixels(image: Image.Image) -> list[tuple[int, int, int]]:
    assert image.mode == "RGB"
    return [tuple(pixel) for row in np.asarray(image).tolist() for pixel in row]


def reread(image: Image.Image, **options) -> Image.Image:
    """Write a picture to a PNG file and open that."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    file.seek(0)
    return Image.open(file)


@pytest.mark.parametrize(
    ("dtype", "values", "grey"),
    [
        ("uint16", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        (">u2", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        ("uint16", [0, 1, 128, 255], [0, 1, 128, 255]),
        ("uint16", [0, 256], [0, 1]),
        ("int32", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        ("int32", [0, 255], [0, 255]),
        ("float32", [0.0, 0.2, 0.5, 1.0], [0, 51, 128, 255]),
        ("float32", [0.0, 1.5, 200.0], [0, 2, 200]),
        ("float32", [0.0, 257.0, 65535.0], [0, 1, 255]),
    ],
)
def test_wide_grey_values_are_scaled_by_their_range(dtype, values, grey):
    image = Image.fromarray(np.array([values], dtype=dtype))
    assert image.mode == "F" or image.mode.startswith("I")
    assert pixels(to_rgb(image)) == [(value, value, value) for value in grey]


def test_a_16_bit_file_is_read_by_its_range():
    image = Image.fromarray(np.array([[0, 32896, 65535]], dtype="uint16"))
    assert pixels(to_rgb(reread(image))) == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    transparent = reread(image, transparency=32896)
    assert pixels(to_rgb(transparent)) == [(0, 0, 0), (255, 255, 255), (255, 255, 255)]


def with_alpha(mode: str) -> Image.Image:
    """Draw a red or black pixel that is opaque, one at 40% and one that is not seen."""
    colour = Image.new("RGBA", (3, 1), "red" if mode.startswith("RGB") else "black")
    colour.putalpha(Image.fromarray(np.array([[255, 102, 0]], dtype="uint8")))
    if mode == "La":
        return colour.convert("LA").convert("La")
    return colour.convert(mode)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGBA", [(255, 0, 0), (255, 153, 153), (255, 255, 255)]),
        ("RGBa", [(255, 0, 0), (255, 153, 153), (255, 255, 255)]),
        ("LA", [(0, 0, 0), (153, 153, 153), (255, 255, 255)]),
        ("La", [(0, 0, 0), (153, 153, 153), (255, 255, 255)]),
        ("PA", [(0, 0, 0), (153, 153, 153), (255, 255, 255)]),
    ],
)
def test_transparent_colours_show_white(mode, expected):
    assert pixels(to_rgb(with_alpha(mode))) == expected


@pytest.mark.parametrize(("mode", "index"), [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_a_transparent_colour_of_a_file_shows_white(mode, index):
    palette = Image.new(mode, (2, 1))
    if mode == "P":
        palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1 if mode == "P" else (9 if mode == "L" else (9, 9, 9)))
    seen = (0, 0, 0) if mode == "P" else (9, 9, 9)
    assert pixels(to_rgb(reread(palette, transparency=index))) == [(255, 255, 255), seen]


def test_opaque_modes_keep_their_colours():
    picture = Image.fromarray(np.array([[(255, 0, 0), (0, 0, 255), (255, 255, 255)]], dtype="uint8"))
    for mode in ("RGB", "RGBX", "CMYK", "HSV", "P"):
        assert pixels(to_rgb(picture.convert(mode))) == list(COLOURS.values())
    assert pixels(to_rgb(Image.fromarray(np.array([[True, False]])))) == [(255, 255, 255), (0, 0, 0)]


def test_the_orientation_of_a_photograph_is_applied():
    picture = Image.fromarray(np.array([[(255, 0, 0), (0, 0, 255)]], dtype="uint8"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise: what is left comes to the top
    turned = to_rgb(reread(picture, exif=exif))
    assert turned.size == (1, 2)
    assert pixels(turned) == [COLOURS["red"], COLOURS["blue"]]
    assert pixels(to_rgb(turned)) == pixels(turned)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"bytes", "image: a bytes; allowed: a PIL.Image.Image"),
        (Path("picture.png"), r"image: a \w*Path; allowed"),
        (np.zeros((2, 2, 3)), "image: a ndarray; allowed"),
        (None, "image: a NoneType; allowed"),
        (Image.new("RGB", (0, 3)), "image: 0 x 3 pixels; allowed: at least 1 x 1"),
        (Image.fromarray(np.array([[0.0, np.nan]], dtype="float32")), "image: values from nan to nan; allowed .* F"),
        (Image.fromarray(np.array([[0.0, np.inf]], dtype="float32")), "image: values from 0.0 to inf"),
        (Image.fromarray(np.array([[-1, 3]], dtype="int32")), "image: values from -1 to 3; .* mode I: 0 to 65535"),
        (Image.fromarray(np.array([[0, 65536]], dtype="int32")), "image: values from 0 to 65536"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_file_that_ends_early_is_refused(kind, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval does
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, kind)
    image = Image.open(io.BytesIO(file.getvalue()[:1200]))
    with pytest.raises(ValueError, match="image: "):
        to_rgb(image)


@pytest.mark.parametrize(("size", "pixels"), [((4000, 7), (4, 52)), ((7, 4000), (52, 4)), ((1, 4000), (52, 4))])
def test_vilt_gets_at_least_one_patch_of_a_long_picture(size, pixels):
    processor = tiny_vilt_processor().image_processor
    picture = with_a_patch(tiny_image(*size), processor)
    assert processor(picture, return_tensors="pt")["pixel_values"].shape[2:] == pixels
    assert picture.size == pixels[::-1]


def test_pictures_of_which_a_patch_is_left_stay_as_they_are():
    processor = tiny_vilt_processor().image_processor
    for size in ((1, 1), (400, 30), (30, 400), (48, 32)):
        picture = tiny_image(*size)
        assert with_a_patch(picture, processor) is picture
        assert min(processor(picture, return_tensors="pt")["pixel_values"].shape[2:]) >= 4
    long = tiny_image(4000, 7)
    assert with_a_patch(long, tiny_meter_processor().image_processor) is long
