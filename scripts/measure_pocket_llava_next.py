"""Measure the bundled pocket LLaVA-NeXT model with stock classes, and write its results file and model card."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lmms_tokendrop.pocket.card import write_card
from lmms_tokendrop.pocket.curriculum import TRAINING_SEEDS
from lmms_tokendrop.pocket.questions import ask
from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.pocket.scenes import make_scene, render
from lmms_tokendrop.pocket.task_data import TASK_IMAGES, task_scenes

CARDS = Path(__file__).resolve().parents[1] / "model_cards"
RESULTS = CARDS / "results" / "pocket_llava_next.json"
KEEP_RATIOS = (0.5, 0.25, 0.11)
PRIOR_SCENES = 3000


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
    images = {number: Image.open(path).convert("RGB") for number, path in paths.items()}
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
    model: Any, processor: Any, items: list[Item], keep: float, seed: int = 0, batch_size: int = 40
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
        seen = [visible(row, keep, seed, start + number) for number, row in enumerate(is_visual)]
        inputs["attention_mask"] = (real & torch.stack(seen)).long()
        guesses = model(**inputs, logits_to_keep=2).logits.argmax(-1)
        outcome += ((guesses[:, 0] == inputs["input_ids"][:, -1]) & (guesses[:, 1] == end)).tolist()
    return outcome


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


def prior_answers() -> dict[str, str]:
    """Find the most frequent answer of each question type on training scenes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(PRIOR_SCENES):
        rng = np.random.default_rng([TRAINING_SEEDS, 0, number])
        for question in ask(make_scene(rng), rng, 10):
            counts[question.type][question.answer] += 1
    return {kind: answers.most_common(1)[0][0] for kind, answers in counts.items()}


def majority_by_question(questions: list[tuple[str, str]], items: list[Item]) -> list[bool]:
    """Answer each question by the most frequent answer to the same text among training questions."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in questions:
        counts[text][answer] += 1
    overall = Counter(answer for _, answer in questions).most_common(1)[0][0]
    best = {text: answers.most_common(1)[0][0] for text, answers in counts.items()}
    return [best.get(item.text, overall) == item.answer for item in items]


def measure_pocket(model: Any, processor: Any, seeds: int) -> Iterator[tuple[str, Any]]:
    """Measure all rows of pocket_scenes.

    Parameters
    ----------
    model, processor
        Stock model and processor.
    seeds
        How many random choices are averaged.

    Yields
    ------
    name : str
    value
        Row, or table by type.
    """
    items = pocket_items()
    yield "questions", len(items)
    yield "images", TASK_IMAGES
    yield "chance", {"accuracy": round(sum(1 / item.choices for item in items) / len(items), 4)}
    prior = prior_answers()
    yield "most_frequent_answer_of_type", row([prior[item.type] == item.answer for item in items])
    blind = right_answers(model, processor, items, 0.0)
    yield "blind", row(blind)
    full = right_answers(model, processor, items, 1.0)
    yield "full", row(full)
    types = {"questions": dict(sorted(Counter(item.type for item in items).items())), "full": by_type(items, full)}
    types["blind"] = by_type(items, blind)
    for keep in KEEP_RATIOS:
        runs = [right_answers(model, processor, items, keep, seed) for seed in range(seeds)]
        single = [row(right) for right in runs]
        mean = round(sum(entry["accuracy"] for entry in single) / seeds, 4)
        yield (
            f"random_{keep:g}",
            {
                "accuracy": mean,
                "standard_error": single[0]["standard_error"],
                "by_seed": [entry["accuracy"] for entry in single],
            },
        )
        types[f"random_{keep:g}"] = by_type(items * seeds, [hit for right in runs for hit in right])
    yield "by_type", types


def measure_easy_vqa(model: Any, processor: Any) -> Iterator[tuple[str, Any]]:
    """Measure easy-VQA: full, without the picture, and the best answer to each question text.

    Parameters
    ----------
    model, processor
        Stock model and processor.

    Yields
    ------
    name : str
    value
        Row.
    """
    import easy_vqa

    items = easy_vqa_items()
    training, answers, _ = easy_vqa.get_train_questions()
    pairs = list(zip([text.lower() for text in training], answers, strict=True))
    yield "questions", len(items)
    yield "most_frequent_answer_of_question", row(majority_by_question(pairs, items))
    yield "blind", row(right_answers(model, processor, items, 0.0))
    yield "full", row(right_answers(model, processor, items, 1.0))
    yield f"random_{KEEP_RATIOS[-1]:g}", row(right_answers(model, processor, items, KEEP_RATIOS[-1]))


def training_facts(folder: Path) -> dict[str, Any]:
    """Read steps, time and the last validation from the training log."""
    lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return {
        "steps": max(line["step"] for line in lines),
        "hours": round(lines[-1]["seconds"] / 3600, 2),
        "last_validation": [line["accuracy"] for line in lines if "validation" in line][-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="random choices averaged in each random row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-easy-vqa", action="store_true")
    parser.add_argument("--card-only", action="store_true", help="write the card from the results file")
    options = parser.parse_args()
    if not options.card_only:
        torch.set_num_threads(options.threads)
        folder = pocket_path("llava_next", "none")
        model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(folder)
        results: dict[str, Any] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 1),
            "training": training_facts(folder),
            "pocket_scenes": {},
            "easy_vqa": {},
        }
        for name, value in measure_pocket(model, processor, options.seeds):
            results["pocket_scenes"][name] = value
            print(name, value, flush=True)
        if not options.without_easy_vqa:
            for name, value in measure_easy_vqa(model, processor):
                results["easy_vqa"][name] = value
                print("easy_vqa", name, value, flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_card(json.loads(RESULTS.read_text()), CARDS / "pocket_llava_next.md")


if __name__ == "__main__":
    main()
