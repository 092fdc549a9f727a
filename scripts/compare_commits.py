"""Compare what two commits compute: `compare_commits.py OLD NEW`.

Every id answers the same questions with its bundled model, and every architecture with every method runs on tiny random
models: several sets of options, batches of different sizes, several images and none, other text backbones and heads.
Kept tokens, counts, bytes of the cache and answers must be equal; logits too, bit by bit for `none` and LLaVA-NeXT,
elsewhere up to 1e-6. Both commits run from worktrees in this environment, on one thread, and read the same files, OLD's
bundled models too, so that NEW shows that it reads what OLD wrote.

A call that keeps other tokens is allowed if it was a near tie: OLD alone gives exactly the same once its weights move
by 1e-6 of themselves. Everything else that differs is printed, and the exit status is 1.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes
from lmms_tokendrop.user_errors import one_line_errors

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

from comparison_cases import jobs, prepare

COLLECT = ROOT / "scripts" / "collect_outcomes.py"
BUNDLED = Path("lmms_tokendrop", "pocket", "weights")

LOGIT_TOLERANCE = 1e-6
NUDGE, NUDGES = 1e-6, 8
BITWISE = ("llava_", "_full")
"""Beginnings or ends of ids whose logits are compared bit by bit."""

MODEL_ARGS: dict[str, list[dict[str, Any]]] = {
    "llava_next_mustdrop": [{}, {"keep_ratio": 0.5}, {"visual_tokens": 20}, {"preset": "textvqa-64"}],
    "llava_next_random": [{"keep_ratio": 0.3}],
    "llava_next_uniform": [{"keep_ratio": 0.3}],
    "llava_next_vision_tome": [{"vision_r": 5}],
    "vilt_pumer": [{}, {"reference": "release"}],
    "vilt_tome": [{"r": 9}],
    "vilt_smres": [{"image_size": 48}],
    "meter_pumer": [{}, {"reference": "release"}],
    "meter_tome": [{"r": 9}],
    "meter_vision_tome": [{"vision_r": 5}],
    "meter_smres": [{"image_size": 48}],
}
"""Model arguments of ids, for the bundled models; others are run with their defaults."""


@dataclass(frozen=True)
class Difference:
    """Where two commits differ.

    Parameters
    ----------
    name
        The job and the call.
    what
        What differs, and by how much.
    cause
        Why that is allowed; None: it is not.
    """

    name: str
    what: str
    cause: str | None = None


def is_bitwise(name: str) -> bool:
    """Whether the logits of a job must be equal bit by bit."""
    variant = name.split(",")[0]
    return variant.startswith(BITWISE[0]) or variant.endswith(BITWISE[1])


def differing(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> str | None:
    """Say what differs between two records; None: nothing."""
    names = [name for name in old["exact"] if old["exact"][name] != new["exact"].get(name)]
    if names:
        return ", ".join(names)
    largest = logit_difference(old, new)
    return None if largest <= tolerance else f"logits by {largest:.1e}"


def logit_difference(old: dict[str, Any], new: dict[str, Any]) -> float:
    """Largest difference of the logits of two records; infinite if a side lacks them or has other shapes or NaN."""
    before, after = old["logits"], new["logits"]
    if before is None or after is None:
        return 0.0 if before is after else math.inf
    if before.shape != after.shape:
        return math.inf
    difference = (before - after).abs().max().item()
    return math.inf if math.isnan(difference) else difference


def compare(name: str, old: Sequence[dict], new: Sequence[dict]) -> Iterator[tuple[int, Difference]]:
    """Differences of a job, each with the number of the call."""
    if len(old) != len(new):
        yield -1, Difference(name, f"{len(old)} and {len(new)} calls")
        return
    tolerance = 0.0 if is_bitwise(name) else LOGIT_TOLERANCE
    for number, (before, after) in enumerate(zip(old, new, strict=True)):
        what = differing(before, after, tolerance)
        if what is not None:
            yield number, Difference(f"{name}, call {number}", what)


def explained(difference: Difference, new: dict[str, Any], nudged: Sequence[dict[str, Any]]) -> Difference:
    """Give a difference its cause if a nudged OLD keeps and answers exactly what NEW does."""
    if difference.what.startswith("logits") or all(new["exact"] != one["exact"] for one in nudged):
        return difference
    cause = f"near tie: OLD gives the same when its weights move by {NUDGE:.0e}"
    return Difference(difference.name, difference.what, cause)


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out; a ValueError if there is none of this name."""
    found = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if found.returncode:
        raise ValueError(f"{commit!r} is no commit of this repository")
    git("worktree", "add", "--detach", str(folder), found.stdout.strip()).check_returncode()
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder)).check_returncode()


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def collected(tree: Path, folder: Path, jobs: Sequence[dict], nudge: tuple[float, int] | None = None) -> dict[str, Any]:
    """Run jobs with the code of a tree."""
    work, outcomes = folder / "work.json", folder / "outcomes.pt"
    work.write_text(json.dumps({"tree": str(tree), "jobs": list(jobs), "nudge": nudge}))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (tree, TESTS))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(COLLECT), str(work), str(outcomes)]
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        raise ValueError(f"{tree.name.upper()} fails; its traceback is above")
    return torch.load(outcomes, weights_only=False)


def write_questions(folder: Path, number: int) -> None:
    """Write pictures and questions of the pocket task."""
    asked = [(scene, question.text) for scene, questions in task_scenes() for question in questions]
    documents = []
    for place, (scene, text) in enumerate(islice(asked, number)):
        render(scene).save(folder / f"{place}.png")
        documents.append({"text": text, "picture": f"{place}.png"})
    (folder / "questions.json").write_text(json.dumps(documents))


def described_jobs(folder: Path, questions: int, only: str) -> list[dict[str, Any]]:
    """All jobs whose names have a text in them, with the files that they read."""
    chosen = []
    for entry in variants():
        for job in jobs(entry.architecture, entry.method):
            described = job.described()
            if only in described["name"]:
                prepare(folder, [job])
                chosen.append(described)
        if entry.pocket is None or not questions or reductions(entry.architecture).options_of(entry.method).required:
            continue
        for model_args in MODEL_ARGS.get(entry.model_id, [{}]):
            options = " ".join(f"{name}={value}" for name, value in model_args.items()) or "defaults"
            name = f"{entry.model_id}, pocket, {options}"
            if only in name:
                chosen.append({"name": name, "variant": entry.model_id, "model_args": model_args})
    if not chosen:
        raise ValueError(f"only={only!r} is in no name; names are like 'llava_next_mustdrop, llama, keep_ratio=0.4'")
    write_questions(folder, questions)
    return chosen


def differences(trees: tuple[Path, Path], folder: Path, jobs: Sequence[dict]) -> tuple[dict, dict, list[Difference]]:
    """Run both commits, and OLD again with nudged weights where something differs."""
    old, new = (collected(tree, folder, jobs) for tree in trees)
    found: list[tuple[str, int, Difference]] = []
    for name in old["records"].keys() & new["records"].keys():
        found += [(name, *entry) for entry in compare(name, old["records"][name], new["records"][name])]
    again = [job for job in jobs if any(f"{name}, ".startswith(f"{job['name']}, ") for name, _, _ in found)]
    nudged = [collected(trees[0], folder, again, (NUDGE, seed))["records"] for seed in range(NUDGES)] if again else []
    listed = []
    for name, number, difference in sorted(found, key=lambda entry: entry[:2]):
        calls = [records[name][number] for records in nudged if number < len(records[name])]
        listed.append(explained(difference, new["records"][name][number], calls) if number >= 0 else difference)
    missing = [name for name in old["ids"] if name not in new["ids"]]
    listed += [Difference(name, "missing in NEW") for name in missing]
    return old, new, listed


def table(old: dict, new: dict, listed: Sequence[Difference]) -> Table:
    """One row per id and model: how many calls were compared, the largest difference of logits, and the result."""
    shown = Table("id", "model", "sets of options", "calls", "logits", "result")
    rows: dict[tuple[str, str], list[str]] = {}
    for name in new["records"]:
        if name in old["records"]:
            rows.setdefault(tuple(name.split(", ")[:2]), []).append(name)
    for (variant, model), names in rows.items():
        mine = [entry for entry in listed if entry.name.startswith(f"{variant}, {model}, ")]
        wrong = sum(entry.cause is None for entry in mine)
        result = f"{wrong} differ" if wrong else f"equal, near ties: {len(mine)}" if mine else "equal"
        pairs = [pair for name in names for pair in zip(old["records"][name], new["records"][name], strict=False)]
        largest = max(logit_difference(*pair) for pair in pairs)
        options = len({name.split(", ")[2] for name in names})
        shown.add_row(variant, model, str(options), str(len(pairs)), f"{largest:.1e}" if largest else "bitwise", result)
    for variant in new["ids"]:
        if variant not in old["ids"]:
            shown.add_row(variant, *[""] * 4, "new")
    return shown


def main(
    old: Annotated[str, typer.Argument(help="The commit before.")],
    new: Annotated[str, typer.Argument(help="The commit after.")],
    questions: Annotated[int, typer.Option(min=0, max=2000, help="Questions that each id answers.")] = 200,
    only: Annotated[str, typer.Option(help="Only what has this text in its name, such as 'vilt_pumer, pocket'.")] = "",
) -> None:
    """Compare two commits."""
    disable_progress_bar()
    with one_line_errors(), tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with worktree(old, place / "old") as before, worktree(new, place / "new") as after:
            shutil.rmtree(after / BUNDLED)
            shutil.copytree(before / BUNDLED, after / BUNDLED)
            files = place / "files"
            files.mkdir()
            jobs = described_jobs(files, questions, only)
            outcomes = differences((before, after), files, jobs)
    console = Console(width=120)
    console.print(table(*outcomes))
    for entry in outcomes[-1]:
        console.print(
            escape(f"{entry.name}: {entry.what}" + (f" ({entry.cause})" if entry.cause else "")), soft_wrap=True
        )
    raise typer.Exit(any(entry.cause is None for entry in outcomes[-1]))


if __name__ == "__main__":
    typer.run(main)
