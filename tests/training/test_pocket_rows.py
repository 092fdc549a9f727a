"""Drawn rows: reproducible, right, and apart from those of evaluation and of the bundled tasks."""

import numpy as np

from lmms_tokendrop.pocket.scenes import render_array
from lmms_tokendrop.pocket.task_data import task_scenes
from lmms_tokendrop.training.pocket_rows import PocketRows


def test_a_row_depends_on_seed_and_index_only():
    first, again, other = PocketRows(9, 4), PocketRows(5, 4), PocketRows(9, 5)
    for index in (3, 0):
        left, right = first[index], again[index]
        assert (left["question"], left["answers"]) == (right["question"], right["answers"])
        assert np.array_equal(left["image"], right["image"])
    assert not np.array_equal(first[0]["image"], first[1]["image"])
    assert not np.array_equal(first[0]["image"], other[0]["image"])
    assert len(first) == 9


def test_the_answer_is_one_that_the_question_allows():
    for index in range(30):
        scene, question = PocketRows(30, 0).draw(index)
        row = PocketRows(30, 0)[index]
        assert row["answers"] == question.answer
        assert question.answer in question.choices
        assert np.array_equal(row["image"], render_array(scene))


def test_evaluation_is_held_out_and_the_same_for_every_run():
    held_out = {PocketRows(20, seed, held_out=True).draw(index)[0].pixel_seed for index in range(20) for seed in (0, 1)}
    trained = {PocketRows(20, seed).draw(index)[0].pixel_seed for index in range(20) for seed in (0, 1)}
    tested = {scene.pixel_seed for scene, _ in task_scenes(images=20)}
    assert len(held_out) == 20
    assert len(trained) == 40
    assert not held_out & trained
    assert not (held_out | trained) & tested
