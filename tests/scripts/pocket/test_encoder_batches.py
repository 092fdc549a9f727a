"""Batches of the pocket encoders say what the pictures and the processor say."""

import numpy as np
import pytest
import torch

from lmms_tokendrop.pocket.questions import Question, ask
from lmms_tokendrop.pocket.scenes import Scene, SceneObject, make_scene, render_array
from pocket.encoder_batches import ABSENT, LABEL_NUMBERS, encoder_batch, patch_grid
from pocket.encoder_labels import LABELS
from pocket.recipes import RECIPES

SCENE = Scene(3, {(0, 1): SceneObject(2, 1, 0, 7), (2, 2): SceneObject(0, 0, 1, 3)}, 0, 5)
QUESTIONS = [
    Question("color_by_shape", "what color is the circle?", "blue", ("red", "blue"), ((0, 1),)),
    Question("ground", "what is the ground?", "plain", ("plain",), ()),
]
ENCODERS = [name for name in RECIPES if name != "llava_next"]


def batch_of(scenes, asked, architecture="vilt"):
    return encoder_batch(scenes, asked, RECIPES[architecture]().processor.tokenizer)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_the_tokenizer_knows_every_word_and_the_labels_every_answer(architecture):
    tokenizer = RECIPES[architecture]().processor.tokenizer
    rng = np.random.default_rng(0)
    for _ in range(40):
        for question in ask(make_scene(rng), rng, 10):
            ids = tokenizer(question.text)["input_ids"]
            assert len(ids) == len(question.text.replace("?", " ?").split()) + 2
            assert tokenizer.unk_token_id not in ids
            assert question.answer in LABELS


def test_patches_carry_the_attributes_of_their_cell():
    grid = patch_grid(SCENE).reshape(6, 6, 4)
    assert (grid[0:2, 2:4] == [3, 2, 1, 8]).all()
    assert (grid[4:6, 4:6] == [1, 1, 2, 4]).all()
    assert grid.any(-1).sum() == 8


def test_a_batch_holds_pictures_questions_and_what_they_are_about():
    batch = batch_of([SCENE], [QUESTIONS])
    assert torch.equal(batch["images"][0].permute(1, 2, 0), torch.from_numpy(render_array(SCENE)))
    assert batch["labels"].tolist() == [[LABEL_NUMBERS["blue"], LABEL_NUMBERS["plain"]]]
    assert batch["shown"][0, 0].reshape(6, 6).nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert not batch["shown"][0, 1].any()


def test_a_picture_with_fewer_questions_is_filled_up():
    batch = batch_of([SCENE, SCENE], [QUESTIONS, QUESTIONS[:1]])
    assert batch["labels"][1].tolist() == [LABEL_NUMBERS["blue"], ABSENT]
    assert batch["attention_mask"][1, 1].tolist() == [True] + [False] * (batch["input_ids"].shape[2] - 1)
