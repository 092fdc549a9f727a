"""Measure the bundled pocket LLaVA-NeXT model with stock classes, and write its results file and model card."""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.pocket.task_data import TASK_IMAGES, TRAINING_SEEDS
from pocket.card import write_card
from pocket.measuring import (
    Item,
    by_type,
    count_parameters,
    easy_vqa_items,
    load_model,
    measure,
    pocket_items,
    prior_answers,
    row,
    training_facts,
)

CARDS = Path(__file__).resolve().parents[1] / "model_cards"
RESULTS = CARDS / "results" / "pocket_llava_next.json"
KEEP_RATIOS = (0.5, 0.25, 0.11)


def majority_by_question(questions: list[tuple[str, str]], items: list[Item]) -> list[bool]:
    """Answer each question by the most frequent answer to the same text among training questions."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in questions:
        counts[text][answer] += 1
    overall = Counter(answer for _, answer in questions).most_common(1)[0][0]
    best = {text: answers.most_common(1)[0][0] for text, answers in counts.items()}
    return [best.get(item.text, overall) == item.answer for item in items]


def measure_pocket(pool: Executor, seeds: int) -> Iterator[tuple[str, Any]]:
    """Measure all rows of pocket_scenes.

    Parameters
    ----------
    pool
        Worker processes.
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
    prior = prior_answers(TRAINING_SEEDS)
    yield "most_frequent_answer_of_type", row([prior[item.type] == item.answer for item in items])
    full = measure(pool, "pocket_scenes", 1.0)
    yield "full", row(full)
    blind = measure(pool, "pocket_scenes", 0.0)
    yield "blind", row(blind)
    types = {"questions": dict(sorted(Counter(item.type for item in items).items())), "full": by_type(items, full)}
    types["blind"] = by_type(items, blind)
    for keep in KEEP_RATIOS:
        runs = [measure(pool, "pocket_scenes", keep, seed) for seed in range(seeds)]
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


def measure_easy_vqa(pool: Executor) -> Iterator[tuple[str, Any]]:
    """Measure easy-VQA: the full model, and the most frequent answer to each question text.

    Parameters
    ----------
    pool
        Worker processes.

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
    yield "full", row(measure(pool, "easy_vqa", 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="random choices averaged in each random row")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--tasks",
        nargs="*",
        choices=["pocket_scenes", "easy_vqa"],
        default=["pocket_scenes", "easy_vqa"],
        help="what to measure; the other results stay, and with none only the card is written",
    )
    options = parser.parse_args()
    folder = pocket_path("llava_next", "none")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["parameters"] = sum(count_parameters(folder))
    results["megabytes"] = round((folder / "model.safetensors").stat().st_size / 1e6, 1)
    results["training"] = training_facts(folder)
    with ProcessPoolExecutor(options.workers, get_context("spawn"), load_model) as pool:
        rows = {
            "pocket_scenes": lambda: measure_pocket(pool, options.seeds),
            "easy_vqa": lambda: measure_easy_vqa(pool),
        }
        for task in options.tasks:
            results[task] = {}
            for name, value in rows[task]():
                results[task][name] = value
                print(task, name, value, flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_card(results, CARDS / "pocket_llava_next.md")


if __name__ == "__main__":
    main()
