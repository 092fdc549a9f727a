"""Run the work of `compare_commits.py` with the lmms_tokendrop that is imported, and save what came out.

    python collect_outcomes.py WORK.json OUTCOMES.pt

`compare_commits.py` starts it once per commit, with that commit's tree and the helpers of the tests on `PYTHONPATH`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from outcomes import Record, load, nudge, recorded, run
from PIL import Image
from transformers.utils import logging

import lmms_tokendrop

BATCH_SIZE = 8
ANSWER_TOKENS = 4
TASK = "questions"


def adapters() -> dict[str, str]:
    """Class path of the adapter of every id, from the entry points that this tree's pyproject.toml names."""
    pyproject = Path(lmms_tokendrop.__file__).resolve().parents[1] / "pyproject.toml"
    points = tomllib.loads(pyproject.read_text())["project"]["entry-points"]["lmms_eval.models"]
    found = {}
    for point in points.values():
        module, name = point.split(":")
        found |= {entry.model_id: entry.simple_class_path for entry in getattr(import_module(module), name)()}
    return found


def tiny_records(job: dict[str, Any], folder: Path, nudged: tuple[float, int] | None) -> Iterator[tuple[str, list]]:
    """Each batch of a tiny model with its records."""
    model = load(job, folder)
    if nudged is not None:
        nudge(model, *nudged)
    for batch, file in job["inputs"].items():
        yield batch, run(model, torch.load(folder / file))


def question_records(
    job: dict[str, Any], folder: Path, adapter_path: str, nudged: tuple[float, int] | None
) -> list[Record]:
    """What the bundled model does with every batch of questions, through the adapter, and then its answers."""
    module, name = adapter_path.rsplit(".", 1)
    adapter = getattr(import_module(module), name)(
        pretrained="pocket", device="cpu", batch_size=BATCH_SIZE, **job["model_args"]
    )
    adapter.on_answer = lambda done, total: None
    model = adapter.engine.model
    if nudged is not None:
        nudge(model, *nudged)
    documents = json.loads((folder / "questions.json").read_text())
    adapter.task_dict[TASK] = {"test": documents}
    requests = [
        Instance(
            "generate_until",
            (
                document["text"],
                {"max_new_tokens": ANSWER_TOKENS},
                lambda one: [Image.open(folder / one["picture"])],
                number,
                TASK,
                "test",
            ),
            0,
            {"task": TASK, "doc_id": number, "repeats": 1, "split": "test"},
        )
        for number, document in enumerate(documents)
    ]
    with recorded(model) as records:
        answers = adapter.generate_until(requests)
    return [*records, {"exact": {"answer": [answer.text for answer in answers]}, "logits": None}]


def collect(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Records of every job whose id there is: `{"ids": [...], "records": {name: [record, ...]}}`."""
    paths = adapters()
    nudged = None if work["nudge"] is None else tuple(work["nudge"])
    records: dict[str, list[Record]] = {}
    for job in work["jobs"]:
        if job["variant"] not in paths:
            continue
        try:
            if "model_args" in job:
                records[job["name"]] = question_records(job, folder, paths[job["variant"]], nudged)
            else:
                found = tiny_records(job, folder, nudged)
                records |= {f"{job['name']}, {batch}": outcome for batch, outcome in found}
        except Exception as error:
            error.add_note(f"This was {job['name']}.")
            raise
    return {"ids": list(paths), "records": records}


def main() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path, outcomes = map(Path, sys.argv[1:])
    work = json.loads(path.read_text())
    if not Path(lmms_tokendrop.__file__).is_relative_to(work["tree"]):
        raise ImportError(f"lmms_tokendrop comes from {lmms_tokendrop.__file__}, not from {work['tree']}")
    torch.save(collect(work, path.parent), outcomes)


if __name__ == "__main__":
    main()
