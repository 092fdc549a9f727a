"""Answering questions with the bundled model, all or some of its visual tokens seen, in worker processes."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lmms_tokendrop.images import to_rgb
from lmms_tokendrop.pocket.questions import ask
from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.pocket.scenes import make_scene, render
from lmms_tokendrop.pocket.task_data import task_scenes

PART = 40
PRIOR_SCENES = 3000
LOADED: dict[str, Any] = {}
"""Model, processor and questions of a worker process."""


@dataclass(frozen=True)
class Item:
    """One question to answer."""

    image: Image.Image
    text: str
    answer: str
    type: str
    choices: int


def pocket_items() -> list[Item]:
    """List the questions of pocket_scenes."""
    return [
        Item(image, question.text, question.answer, question.type, len(question.choices))
        for scene, asked in task_scenes()
        for image in [render(scene)]
        for question in asked
    ]


def easy_vqa_items() -> list[Item]:
    """List the test questions of easy-VQA."""
    import easy_vqa

    paths = easy_vqa.get_test_image_paths()
    images = {number: to_rgb(Image.open(path)) for number, path in paths.items()}
    answers = len(easy_vqa.get_answers())
    return [
        Item(images[number], question.lower(), answer, "easy_vqa", answers)
        for question, answer, number in zip(*easy_vqa.get_test_questions(), strict=True)
    ]


def visible(is_visual: torch.Tensor, keep: float, seed: int, number: int) -> torch.Tensor:
    """Choose which tokens of one prompt may be seen: all text, and a random share of the visual tokens.

    Parameters
    ----------
    is_visual
        Which tokens are visual.
    keep
        Share of visual tokens kept.
    seed, number
        Seed of the row and number of the question.

    Returns
    -------
    torch.Tensor
        Boolean, as long as the prompt.
    """
    places = is_visual.nonzero().flatten()
    rng = np.random.default_rng([seed, number])
    kept = rng.permutation(len(places))[: round(keep * len(places))]
    seen = ~is_visual
    seen[places[torch.from_numpy(kept)]] = True
    return seen


@torch.no_grad()
def right_answers(
    model: Any, processor: Any, items: list[Item], keep: float, seed: int = 0, first: int = 0, batch_size: int = 40
) -> list[bool]:
    """Tell which questions are answered right, in greedy decoding, by the answer followed by the end token.

    Dropped visual tokens are hidden from every other token and keep their position numbers.

    Parameters
    ----------
    model, processor
        Stock model and processor.
    items
        The questions.
    keep
        Share of visual tokens kept: 1 is the full model, 0 the blind one.
    seed
        Seed of the random choice.
    first
        Number of the first question, for the random choice.
    batch_size
        Questions at a time.

    Returns
    -------
    list of bool
    """
    end = processor.tokenizer.eos_token_id
    outcome = []
    for start in range(0, len(items), batch_size):
        chunk = items[start : start + batch_size]
        texts = []
        for item in chunk:
            user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": item.text}]}
            texts.append(processor.apply_chat_template([user], add_generation_prompt=True) + f" {item.answer}")
        inputs = processor(images=[item.image for item in chunk], text=texts, padding=True, return_tensors="pt")
        real = inputs["attention_mask"].bool()
        inputs["position_ids"] = (real.cumsum(-1) - 1).clamp(min=0)
        is_visual = inputs["input_ids"] == model.config.image_token_id
        seen = [visible(row, keep, seed, first + start + number) for number, row in enumerate(is_visual)]
        inputs["attention_mask"] = (real & torch.stack(seen)).long()
        guesses = model(**inputs, logits_to_keep=2).logits.argmax(-1)
        outcome += ((guesses[:, 0] == inputs["input_ids"][:, -1]) & (guesses[:, 1] == end)).tolist()
    return outcome


SETS: dict[str, Callable[[], list[Item]]] = {"pocket_scenes": cache(pocket_items), "easy_vqa": cache(easy_vqa_items)}


def load_model() -> None:
    """Load the bundled model with stock classes into this process."""
    torch.set_num_threads(1)
    folder = pocket_path("llava_next", "none")
    LOADED["model"] = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    LOADED["processor"] = AutoProcessor.from_pretrained(folder)


def run_part(part: tuple[str, int, float, int]) -> list[bool]:
    """Answer some of the questions of a set in a worker process.

    Parameters
    ----------
    part
        Name of the set, number of the first question, share kept, seed.

    Returns
    -------
    list of bool
    """
    name, start, keep, seed = part
    if name not in LOADED:
        LOADED[name] = SETS[name]()
    chunk = LOADED[name][start : start + PART]
    return right_answers(LOADED["model"], LOADED["processor"], chunk, keep, seed, start)


def measure(pool: Executor, name: str, keep: float, seed: int = 0) -> list[bool]:
    """Answer all questions of a set.

    Parameters
    ----------
    pool
        Worker processes.
    name
        Key of `SETS`.
    keep, seed
        Share of visual tokens kept, and seed of the random choice.

    Returns
    -------
    list of bool
    """
    parts = [(name, start, keep, seed) for start in range(0, len(SETS[name]()), PART)]
    return [hit for part in pool.map(run_part, parts) for hit in part]


def row(right: list[bool]) -> dict[str, float]:
    """Give accuracy and standard error of a list of outcomes."""
    accuracy = sum(right) / len(right)
    return {
        "accuracy": round(accuracy, 4),
        "standard_error": round(math.sqrt(accuracy * (1 - accuracy) / len(right)), 4),
    }


def by_type(items: list[Item], right: list[bool]) -> dict[str, float]:
    """Give the accuracy of each question type."""
    outcomes = defaultdict(list)
    for item, hit in zip(items, right, strict=True):
        outcomes[item.type].append(hit)
    return {kind: round(sum(hits) / len(hits), 3) for kind, hits in sorted(outcomes.items())}


def prior_answers(seeds: int) -> dict[str, str]:
    """Find the most frequent answer of each question type.

    Parameters
    ----------
    seeds
        First number of the seeds of the training scenes.

    Returns
    -------
    dict of str to str
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(PRIOR_SCENES):
        rng = np.random.default_rng([seeds, 0, number])
        for question in ask(make_scene(rng), rng, 10):
            counts[question.type][question.answer] += 1
    return {kind: answers.most_common(1)[0][0] for kind, answers in counts.items()}


def training_facts(folder: Path) -> dict[str, Any]:
    """Read steps, time and the last validation from the training log of a bundled model."""
    lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return {
        "steps": max(line["step"] for line in lines),
        "hours": round(lines[-1]["seconds"] / 3600, 2),
        "last_validation": [line["accuracy"] for line in lines if "validation" in line][-1],
    }


def count_parameters(folder: Path) -> list[int]:
    """Give the size of every tensor of a bundled model."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
