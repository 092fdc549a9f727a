"""Questions about a scene, each with exactly one right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmms_tokendrop.pocket.scenes import ATTRIBUTE_NAMES, Scene, SceneObject
from lmms_tokendrop.pocket.vocabulary import COLOR_NAMES, DIGIT_NAMES, GROUND_NAMES, YES_NO

Cell = tuple[int, int]
NEIGHBORS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    Attributes
    ----------
    type
        Key of `QUESTION_WEIGHTS`.
    text
        The question, ending in a question mark.
    answer
        One word.
    choices
        All answers that the question type allows.
    cells
        The (row, column) cells that have to be looked at; empty for questions about the whole picture or about
        something absent.
    """

    type: str
    text: str
    answer: str
    choices: tuple[str, ...]
    cells: tuple[Cell, ...]


def _phrase(item: SceneObject, attributes: tuple[str, ...]) -> str:
    adjectives = [item.name(name) for name in ("texture", "color") if name in attributes]
    noun = item.name("shape") if "shape" in attributes else "object"
    tail = [f"with digit {item.name('digit')}"] if "digit" in attributes else []
    return " ".join([*adjectives, noun, *tail])


def _matching(scene: Scene, item: SceneObject, attributes: tuple[str, ...]) -> tuple[Cell, ...]:
    wanted = [(name, getattr(item, name)) for name in attributes]
    return tuple(
        cell for cell, other in scene.objects.items() if all(getattr(other, name) == value for name, value in wanted)
    )


def _attribute(asked: str, *given: str) -> Callable[[Scene, np.random.Generator], Question | None]:
    words = {
        "color": "what color is",
        "shape": "what shape is",
        "texture": "what texture is",
        "digit": "what digit is on",
    }
    kind = f"{asked}_by_{'_'.join(given)}"

    def build(scene: Scene, rng: np.random.Generator) -> Question | None:
        item = list(scene.objects.values())[rng.integers(len(scene.objects))]
        cells = _matching(scene, item, given)
        if len(cells) != 1:
            return None
        text = f"{words[asked]} the {_phrase(item, given)}?"
        return Question(kind, text, item.name(asked), tuple(ATTRIBUTE_NAMES[asked]), cells)

    return build


def _random_item(rng: np.random.Generator) -> SceneObject:
    return SceneObject(*rng.integers(0, [len(names) for names in ATTRIBUTE_NAMES.values()]).tolist())


def _probe(scene: Scene, rng: np.random.Generator) -> SceneObject:
    if rng.random() < 0.5:
        return _random_item(rng)
    return list(scene.objects.values())[rng.integers(len(scene.objects))]


def _count(given: str) -> Callable[[Scene, np.random.Generator], Question]:
    def build(scene: Scene, rng: np.random.Generator) -> Question:
        item = _probe(scene, rng)
        cells = _matching(scene, item, (given,))
        phrase = f"{item.name('color')} objects" if given == "color" else f"{item.name('shape')} objects"
        answer = str(min(len(cells), 9))
        return Question(f"count_{given}", f"how many {phrase} are there?", answer, tuple(DIGIT_NAMES), cells)

    return build


def _exists(*given: str) -> Callable[[Scene, np.random.Generator], Question]:
    def build(scene: Scene, rng: np.random.Generator) -> Question:
        item = _probe(scene, rng)
        cells = _matching(scene, item, given)
        answer = "yes" if cells else "no"
        return Question(
            f"exists_{'_'.join(given)}", f"is there a {_phrase(item, given)}?", answer, tuple(YES_NO), cells
        )

    return build


def _neighbor(scene: Scene, rng: np.random.Generator) -> Question | None:
    places = list(scene.objects)
    anchor = places[rng.integers(len(places))]
    item = scene.objects[anchor]
    if len(_matching(scene, item, ("color", "shape"))) != 1:
        return None
    for direction in rng.permutation(len(NEIGHBORS)).tolist():
        word, (down, right) = list(NEIGHBORS.items())[direction]
        cell = (anchor[0] + down, anchor[1] + right)
        if cell in scene.objects:
            text = f"what color is the object {word} the {_phrase(item, ('color', 'shape'))}?"
            return Question(
                "neighbor_color", text, scene.objects[cell].name("color"), tuple(COLOR_NAMES), (anchor, cell)
            )
    return None


def _order(scene: Scene, rng: np.random.Generator) -> Question | None:
    places = list(scene.objects)
    first, second = (places[index] for index in rng.permutation(len(places))[:2])
    if any(len(_matching(scene, scene.objects[cell], ("color", "shape"))) != 1 for cell in (first, second)):
        return None
    word, axis, sign = (("left of", 1, 1), ("right of", 1, -1), ("above", 0, 1), ("below", 0, -1))[rng.integers(4)]
    distance = sign * (second[axis] - first[axis])
    if distance == 0:
        return None
    phrases = [_phrase(scene.objects[cell], ("color", "shape")) for cell in (first, second)]
    answer = "yes" if distance > 0 else "no"
    return Question("order", f"is the {phrases[0]} {word} the {phrases[1]}?", answer, tuple(YES_NO), (first, second))


def _ground(scene: Scene, rng: np.random.Generator) -> Question:
    return Question("ground", "what is the ground?", GROUND_NAMES[scene.ground], tuple(GROUND_NAMES), ())


BUILDERS: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "color_by_shape": _attribute("color", "shape"),
    "shape_by_color": _attribute("shape", "color"),
    "digit_by_color": _attribute("digit", "color"),
    "color_by_digit": _attribute("color", "digit"),
    "shape_by_digit": _attribute("shape", "digit"),
    "digit_by_color_shape": _attribute("digit", "color", "shape"),
    "color_by_shape_digit": _attribute("color", "shape", "digit"),
    "texture_by_color_shape": _attribute("texture", "color", "shape"),
    "shape_by_texture_color": _attribute("shape", "texture", "color"),
    "count_color": _count("color"),
    "count_shape": _count("shape"),
    "exists_color": _exists("color"),
    "exists_color_shape": _exists("color", "shape"),
    "neighbor_color": _neighbor,
    "order": _order,
    "ground": _ground,
}
EASY_WEIGHTS: dict[str, float] = {
    "color_by_shape": 2,
    "shape_by_color": 2,
    "digit_by_color": 2,
    "color_by_digit": 2,
    "shape_by_digit": 1,
    "exists_color": 0.5,
    "ground": 0.3,
}
"""Type weights of the first training stage: an attribute named by one other attribute."""

QUESTION_WEIGHTS: dict[str, float] = {
    "color_by_shape": 1,
    "shape_by_color": 1,
    "digit_by_color": 1,
    "color_by_digit": 1,
    "shape_by_digit": 1,
    "digit_by_color_shape": 1.5,
    "color_by_shape_digit": 1,
    "texture_by_color_shape": 1,
    "shape_by_texture_color": 1,
    "count_color": 0.8,
    "count_shape": 0.6,
    "exists_color": 0.5,
    "exists_color_shape": 0.9,
    "neighbor_color": 0.8,
    "order": 0.6,
    "ground": 0.5,
}
"""Type weights of the task."""


def ask(scene: Scene, rng: np.random.Generator, number: int, weights: dict[str, float] | None = None) -> list[Question]:
    """Ask different questions about a scene.

    Parameters
    ----------
    scene
        What to ask about.
    rng
        Source of randomness.
    number
        Questions wanted; fewer come back when the scene does not allow as many.
    weights
        How often each type is tried; `QUESTION_WEIGHTS` by default.

    Returns
    -------
    list of Question
        No two with the same text.
    """
    weights = QUESTION_WEIGHTS if weights is None else weights
    names = list(weights)
    shares = np.array(list(weights.values()), dtype=float)
    tries = np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(number * 6)).tolist()
    found: dict[str, Question] = {}
    for index in tries:
        question = BUILDERS[names[min(index, len(names) - 1)]](scene, rng)
        if question is not None:
            found.setdefault(question.text, question)
        if len(found) == number:
            break
    return list(found.values())
