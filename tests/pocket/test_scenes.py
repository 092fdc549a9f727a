"""Scenes are reproducible, inside their limits, and never shared between training and tasks."""

import hashlib

import numpy as np
import pytest

from lmms_tokendrop.pocket.scenes import make_scene, render, render_array
from lmms_tokendrop.pocket.sprites import GLYPHS, sprite
from lmms_tokendrop.pocket.task_data import CHOICE_SEEDS, TASK_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, task_scenes

GOLDEN_PIXELS = "622ea0cd27f5dd09"
GOLDEN_LABELS = "6a92fb0608bb5678"


def test_golden_scene():
    scene = make_scene(np.random.default_rng(7))
    pixels = hashlib.sha256(render_array(scene).tobytes()).hexdigest()[:16]
    labels = hashlib.sha256(repr(scene).encode()).hexdigest()[:16]
    assert (pixels, labels) == (GOLDEN_PIXELS, GOLDEN_LABELS)


def test_same_seed_same_scene():
    first, second = (make_scene(np.random.default_rng([4, 2])) for _ in range(2))
    assert first == second
    assert np.array_equal(render_array(first), render_array(second))


@pytest.mark.parametrize(("cells", "objects"), [(3, (2, 4)), (6, (8, 12))])
def test_objects_and_size(cells, objects):
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(40):
        scene = make_scene(rng, cells, objects)
        counts.add(len(scene.objects))
        assert all(0 <= row < cells and 0 <= column < cells for row, column in scene.objects)
    assert min(counts) == objects[0]
    assert max(counts) == objects[1]
    assert render(scene).size == (16 * cells, 16 * cells)


def test_every_sprite_differs():
    drawn = set()
    for color in range(8):
        for shape in range(6):
            for texture in range(3):
                pixels, mask = sprite(color, shape, texture, 0)
                drawn.add((pixels * mask).tobytes())
    assert len(drawn) == 8 * 6 * 3
    assert len({glyph.tobytes() for glyph in GLYPHS}) == 10


def test_seeds_are_held_out():
    assert len({TRAINING_SEEDS, TASK_SEEDS, VALIDATION_SEEDS, CHOICE_SEEDS}) == 4
    task = {scene.pixel_seed for scene, _ in task_scenes(50)}
    training = {
        make_scene(np.random.default_rng([TRAINING_SEEDS, seed, step])).pixel_seed
        for seed in range(3)
        for step in range(50)
    }
    assert not task & training
