"""What every variant keeps and answers on tiny models, and the files that hold it: `tests/golden/ID.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from comparison_cases import Job, golden_jobs, prepare
from outcomes import load, nudge, run

GOLDEN = Path(__file__).resolve().parent / "golden"
COMMAND = "python scripts/write_goldens.py"
DECIMALS = 7


def computed(job: Job, folder: Path, nudged: tuple[float, int] | None = None) -> dict[str, Any]:
    """Run a golden job; `folder` takes its checkpoint and inputs, `nudged` is what `outcomes.nudge` takes.

    Returns
    -------
    dict
        `kept`: what the first call left. `answer`: tokens that a decoder wrote. `logits`: of every call, a tensor
        `[calls, batch, labels or vocabulary]`.
    """
    prepare(folder, [job])
    described = job.described()
    model = load(described, folder)
    if nudged is not None:
        nudge(model, *nudged)
    [inputs] = described["inputs"].values()
    records = run(model, torch.load(folder / inputs))
    logits = torch.stack([record["logits"] for record in records if record["logits"] is not None])
    kept = json.loads(json.dumps(records[0]["exact"]["kept"]))
    return {"kept": kept, "answer": records[-1]["exact"].get("answer"), "logits": logits}


def read_golden(variant: str) -> dict[str, dict[str, Any]]:
    """Golden data of a variant by its options.

    Raises
    ------
    ValueError
        If there are none, with the command that writes them.
    """
    path = GOLDEN / f"{variant}.json"
    if not path.exists():
        raise ValueError(f"{variant} has no golden data; write them with: {COMMAND} {variant}")
    stored = json.loads(path.read_text())
    return {options: {**golden, "logits": torch.tensor(golden["logits"])} for options, golden in stored.items()}


def write_golden(variant: str, architecture: str, method: str, folder: Path) -> Path:
    """Compute a variant's golden data and write them."""
    found = {job.options: computed(job, folder) for job in golden_jobs(architecture, method)}
    lines = []
    for options, golden in found.items():
        numbers = [[[round(value, DECIMALS) for value in row] for row in call] for call in golden["logits"].tolist()]
        line = json.dumps({**golden, "logits": numbers}, separators=(",", ":"))
        lines.append(f"{json.dumps(options)}: {line}")
    path = GOLDEN / f"{variant}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return path
