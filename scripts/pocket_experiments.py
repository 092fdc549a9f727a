"""Fine-tune and measure the rows of a pocket encoder's tables, and write each result at once.

Rows that are in the results file already are left alone; a killed run goes on where it was.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoProcessor

from lmms_tokendrop.bench.encoder_variants import ENCODERS as COSTS
from lmms_tokendrop.bench.throughput_protocol import alternate, speed_up
from lmms_tokendrop.benchmark.comparison import Run, measurement
from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.evaluation.running import run_task
from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.pocket.registry import WEIGHTS, pocket_path
from lmms_tokendrop.training.model_classes import head_class
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors
from pocket.encoder_card import render_card
from pocket.encoder_measuring import UNREDUCED, baselines, model_facts
from pocket.experiments import EXPERIMENTS, FULL, Experiment, experiments, tables_of
from pocket.measuring import pocket_items, training_facts
from pocket.recipes import student_recipe

Name = StrEnum("Name", sorted(EXPERIMENTS))
RESULTS = Path(__file__).resolve().parents[1] / "model_cards" / "results"
TASK = "pocket_scenes"
TEXT_TOKENS = 10
"""Rounded mean length of the task's questions, for multiply-accumulates."""
SPEED_BATCH = 32
TEACHER = "pocket-teacher"


def fine_tune(architecture: str, entry: Experiment, folder: Path) -> Path:
    """Train a row, or go on where a killed run stopped; the folder of the model."""
    model = folder / "model"
    if not (model / "training_log.jsonl").exists():  # what an export writes last
        reduction = {"method": entry.method, **entry.reduction}
        recipe = student_recipe(architecture, reduction, distilled=entry.distilled)
        recipe.train(folder, entry.seed, max_steps=entry.steps)
        recipe.export(folder, model)
    if entry.is_bundled(architecture):
        target = WEIGHTS / f"{architecture}_{entry.method}"
        shutil.rmtree(target)
        shutil.copytree(model, target)
    return model


def answers(architecture: str, entry: Experiment, folder: Path, pretrained: str) -> dict[str, Any]:
    """Answer the task's questions, or read what an earlier run answered."""
    kept = folder / "answers.json"
    if kept.exists():
        return json.loads(kept.read_text())
    [variant] = variants(architecture=architecture, method=entry.method)
    reduction = {} if entry.steps else entry.reduction
    results = run_task(variant.model_id, TASK, {"pretrained": pretrained, **reduction}, batch_size=50, device="cpu")
    scores = {str(sample["doc_id"]): float(sample["accuracy"]) for sample in results["samples"][TASK]}
    answered = {"model_id": variant.model_id, "scores": scores, "cost": results["throughput"]}
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(answered))
    return answered


def read(path: Path) -> dict[str, Any]:
    """Read the results so far; several runs may add to them in turn."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, **parts: Any) -> None:
    """Replace parts of the results."""
    path.write_text(json.dumps({**read(path), **parts}, indent=1) + "\n")


def right_by_type(types: Sequence[str], scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Right answers and questions of each type."""
    found: dict[str, dict[str, float]] = {}
    for number, score in scores.items():
        counts = found.setdefault(types[int(number)], {"right": 0, "questions": 0})
        counts["right"] += score
        counts["questions"] += 1
    return dict(sorted(found.items()))


def macs(architecture: str, entry: Experiment) -> int:
    """Multiply-accumulates of a question of mean length."""
    config = UNREDUCED[architecture].config_class.from_pretrained(pocket_path(architecture, "none"))
    return COSTS[architecture].macs(config, {"method": entry.method, **entry.reduction}, TEXT_TOKENS)


def write_card(architecture: str) -> None:
    """Render the model card."""
    (RESULTS.parent / f"pocket_{architecture}.md").write_text(render_card(architecture, RESULTS))


@torch.inference_mode()
def measure_speed(architecture: str, labels: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """Time the forward passes of rows on one batch of the task's questions, in turn, against the unreduced model.

    The weights do not matter for the time, so all rows have those of the unreduced model, and predictors are drawn.
    """
    folder = pocket_path(architecture, "none")
    processor = AutoProcessor.from_pretrained(folder)
    items = pocket_items()[:: 2000 // SPEED_BATCH][:SPEED_BATCH]
    inputs = processor(
        images=[item.image for item in items], text=[item.text for item in items], padding=True, return_tensors="pt"
    )
    head = head_class(architecture, "vqa")
    runs = {}
    for label in labels:
        entry = experiments(architecture)[label]
        reduction = {"method": entry.method, **entry.reduction}
        drawn = (f"{head.base_model_prefix}.token_reducer.",)
        model = head.from_pretrained(folder, token_reduction=reduction, dtype=torch.float32, new_parameters=drawn)
        runs[label] = partial(model.eval(), **inputs)
    rates = alternate(runs, dict.fromkeys(runs, len(items)), seconds, 0.5)
    return {label: asdict(speed_up(rates[label], rates[FULL.label])) for label in labels}


def main(
    architecture: Annotated[Name, typer.Argument(help="The encoder.")],
    runs: Annotated[Path, typer.Option(help="Folder of the fine-tunes.")],
    tables: Annotated[str, typer.Option(help="Which tables: names with commas between; default: all.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of all that is done.")] = 1,
    speed: Annotated[float | None, typer.Option(help="Only time the measured rows, each for so many seconds.")] = None,
) -> None:
    """Fine-tune and measure the rows of a pocket encoder's tables that are not measured yet."""
    rows_of = EXPERIMENTS[architecture]
    chosen = tables.split(",") if tables else list(rows_of)
    with one_line_errors():
        check_output_folder("runs", runs)
        if speed is not None:
            checked_number("speed", speed, whole=False, low=0)
        if unknown := set(chosen) - set(rows_of):
            raise ValueError(f"tables: {', '.join(sorted(unknown))}; allowed: {', '.join(rows_of)}")

    logging.disable(logging.INFO)
    torch.set_num_threads(threads)
    path = RESULTS / f"pocket_{architecture}.json"
    if speed is not None:
        rows = read(path)["rows"]
        found = measure_speed(architecture, list(rows), speed)
        conditions = {"threads": threads, "batch_size": SPEED_BATCH, "machine": f"{platform.machine()} CPU"}
        timed = {label: {**row, "speed_up": found[label]} for label, row in rows.items()}
        write(path, rows=timed, speed=conditions)
        write_card(architecture)
        return
    facts = read(path).get("baselines") or baselines(architecture)
    write(path, model=model_facts(architecture), baselines=facts, tables=tables_of(architecture))
    wanted = dict.fromkeys(entry.label for name in chosen for entry in rows_of[name])
    known = experiments(architecture)
    full = answers(architecture, FULL, runs / FULL.label, TEACHER)["scores"]
    types = [item.type for item in pocket_items()]
    for label in dict.fromkeys([FULL.label, *wanted]):
        if label in read(path).get("rows", {}):
            continue
        entry = known[label]
        folder = runs / label.replace(" ", "_").replace(",", "")
        pretrained = str(fine_tune(architecture, entry, folder)) if entry.steps else TEACHER
        answered = answers(architecture, entry, folder, pretrained)
        row = asdict(measurement(Run(answered["model_id"], label), answered["scores"], full, answered["cost"]))
        for name in ("budget", "kv_bytes", "seconds"):
            del row[name]
        row["trained_steps"] = entry.steps
        if entry.steps:
            row["training_minutes"] = round(60 * training_facts(Path(pretrained))["hours"], 1)
        row["macs"] = macs(architecture, entry)
        row["by_type"] = right_by_type(types, answered["scores"])
        write(path, rows={**read(path).get("rows", {}), label: row})
        print(label, row, flush=True)
    write_card(architecture)


if __name__ == "__main__":
    typer.run(main)
