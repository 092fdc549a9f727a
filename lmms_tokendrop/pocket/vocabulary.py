"""The words of the scenes: attribute values, questions, and the words of easy-VQA."""

from __future__ import annotations

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 210, 220),
    "white": (240, 240, 240),
}
COLOR_NAMES = list(COLORS)
SHAPE_NAMES = ["square", "circle", "triangle", "cross", "diamond", "ring"]
TEXTURE_NAMES = ["solid", "hatched", "spotted"]
DIGIT_NAMES = [str(digit) for digit in range(10)]
GROUND_NAMES = ["plain", "striped", "dotted", "noisy"]
YES_NO = ["yes", "no"]

PAD, BEGIN, END, IMAGE, UNKNOWN = "<pad>", "<s>", "</s>", "<image>", "<unk>"
SPECIAL_TOKENS = [PAD, BEGIN, END, IMAGE, UNKNOWN]

TEMPLATE_WORDS = ["USER", "ASSISTANT", ":", "?"]
# fmt: off
QUESTION_WORDS = [
    "what", "color", "shape", "digit", "texture", "is", "are", "on", "the", "of", "object", "objects", "with", "how",
    "many", "there", "a", "left", "right", "above", "below", "ground",
]
EASY_VQA_WORDS = [
    "a", "black", "blue", "brown", "circle", "color", "contain", "does", "gray", "green", "image", "in", "is", "no",
    "not", "of", "present", "rectangle", "red", "shape", "teal", "the", "there", "triangle", "what", "yellow", "yes",
]
# fmt: on


def vocabulary() -> dict[str, int]:
    """Map every token to its number; the order is fixed, because trained weights depend on it.

    Returns
    -------
    dict of str to int
        Special tokens first, `<pad>` is 0.
    """
    words = [
        *SPECIAL_TOKENS,
        *TEMPLATE_WORDS,
        *COLOR_NAMES,
        *SHAPE_NAMES,
        *TEXTURE_NAMES,
        *DIGIT_NAMES,
        *GROUND_NAMES,
        *YES_NO,
        *QUESTION_WORDS,
        *EASY_VQA_WORDS,
    ]
    return {word: number for number, word in enumerate(dict.fromkeys(words))}
