"""Every answer is recounted here from the question's text alone, independently of how it was made."""

import re

import numpy as np
import pytest

from lmms_tokendrop.pocket.questions import BUILDERS, EASY_WEIGHTS, QUESTION_WEIGHTS, ask
from lmms_tokendrop.pocket.scenes import make_scene
from lmms_tokendrop.pocket.vocabulary import COLOR_NAMES, GROUND_NAMES, SHAPE_NAMES, TEXTURE_NAMES, vocabulary

STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
WHERE = "|".join(STEPS)


def describe(item):
    return {
        "color": COLOR_NAMES[item.color],
        "shape": SHAPE_NAMES[item.shape],
        "texture": TEXTURE_NAMES[item.texture],
        "digit": str(item.digit),
    }


def find(scene, phrase):
    wanted = {}
    digit = re.search(r" with digit (\d)$", phrase)
    if digit:
        wanted["digit"] = digit[1]
    for word in phrase.split(" with ")[0].split():
        for kind, names in (("color", COLOR_NAMES), ("shape", SHAPE_NAMES), ("texture", TEXTURE_NAMES)):
            if word in names:
                wanted[kind] = word
    return [
        cell
        for cell, item in scene.objects.items()
        if all(describe(item)[kind] == word for kind, word in wanted.items())
    ]


def only(cells):
    assert len(cells) == 1
    return cells[0]


def recount(scene, text):
    if text == "what is the ground?":
        return GROUND_NAMES[scene.ground], []
    if found := re.fullmatch(r"how many (\w+) objects are there\?", text):
        cells = find(scene, found[1])
        return str(len(cells)), cells
    if found := re.fullmatch(r"is there a (.+)\?", text):
        cells = find(scene, found[1])
        return "yes" if cells else "no", cells
    if found := re.fullmatch(rf"what color is the object ({WHERE}) the (.+)\?", text):
        anchor = only(find(scene, found[2]))
        cell = (anchor[0] + STEPS[found[1]][0], anchor[1] + STEPS[found[1]][1])
        return describe(scene.objects[cell])["color"], [anchor, cell]
    if found := re.fullmatch(rf"is the (.+) ({WHERE}) the (.+)\?", text):
        first, second = only(find(scene, found[1])), only(find(scene, found[3]))
        axis, sign = {"left of": (1, 1), "right of": (1, -1), "above": (0, 1), "below": (0, -1)}[found[2]]
        assert first[axis] != second[axis]
        return "yes" if sign * first[axis] < sign * second[axis] else "no", [first, second]
    found = re.fullmatch(r"what (color|shape|texture|digit) is (?:on )?the (.+)\?", text)
    cell = only(find(scene, found[2]))
    return describe(scene.objects[cell])[found[1]], [cell]


@pytest.mark.parametrize(("cells", "objects"), [(3, (2, 6)), (6, (8, 12))])
def test_answers_and_cells_are_right(cells, objects):
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(150):
        scene = make_scene(rng, cells, objects)
        for question in ask(scene, rng, 12):
            answer, looked_at = recount(scene, question.text)
            assert question.answer == answer
            assert sorted(question.cells) == sorted(looked_at)
            assert question.answer in question.choices
            seen.add(question.type)
    assert seen == set(QUESTION_WEIGHTS)


def test_questions_of_a_scene_differ():
    rng = np.random.default_rng(3)
    for _ in range(30):
        asked = ask(make_scene(rng), rng, 10)
        assert len({question.text for question in asked}) == len(asked) == 10


def test_same_seed_same_questions():
    def draw():
        rng = np.random.default_rng(5)
        return ask(make_scene(rng), rng, 10)

    assert draw() == draw()


def test_weights_name_existing_types():
    assert set(QUESTION_WEIGHTS) == set(BUILDERS)
    assert set(EASY_WEIGHTS) <= set(BUILDERS)


def test_every_word_is_in_the_vocabulary():
    rng = np.random.default_rng(8)
    for _ in range(100):
        for question in ask(make_scene(rng), rng, 10):
            words = question.text.replace("?", " ?").split()
            assert all(word in vocabulary() for word in [*words, *question.choices])
