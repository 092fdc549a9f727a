"""An exported folder and results files, as far as a card reads them, and the cards made of them."""

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.hub.card import folder_card
from lmms_tokendrop.hub.folder import CARD
from lmms_tokendrop.hub.manifest import Manifest
from lmms_tokendrop.hub.picture import PICTURE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEED = {
    "architecture": "llava_next",
    "shape": "2x64",
    "tower": "3x64",
    "pretrained": None,
    "budget": "1/5",
    "counter": "input",
    "text_tokens": 10,
    "batch_size": 1,
    "dtype": "float32",
    "threads": 1,
    "machine": "a test's machine",
    "repeats": 3,
    "stock_attention": "sdpa",
    "costs": [{"image": "96x96", "name": "stock", "visual_tokens": 100.0}],
    "rows": [
        {
            "part": "prefill",
            "image": "96x96",
            "name": "mustdrop",
            "seconds": {"median": 1.0, "low": 0.5, "high": 1.5},
            "speed_up": {"median": 2.0, "low": 1.5, "high": 2.5},
            "allowed": 2.5,
            "quotient": 0.8,
        }
    ],
    "shares": [{"image": "96x96", "name": "mustdrop", "rows": 0.01, "selection": 0.03, "before": 0.002}],
}
REDUCED, FULL = "b_results.json", "a_results.json"
OTHERS = [
    ("llava_next_mustdrop", f"pretrained=owner/base,revision={COMMIT},keep_ratio=0.5"),
    ("llava_next_mustdrop", f"pretrained=owner/base,revision={COMMIT}"),
    ("llava_next_random", f"pretrained=owner/base,revision={COMMIT},keep_ratio=0.25"),
    ("llava_next_mustdrop", f"pretrained=other/base,revision={COMMIT},keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=base,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=owner/base,revision=main,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=owner/base,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=you/exported"),
    ("llava_next_mustdrop", "pretrained=you/exported,revision=v1.2.2"),
    ("llava_next_full", "pretrained=owner/base"),
]
"""Runs of other models, other options, other versions, and of a version that nobody knows."""


def write_export(folder: Path) -> Path:
    """Write an exported folder, as far as a card reads it."""
    folder.mkdir()
    config = {
        "architectures": ["LlavaNextTokenDropForConditionalGeneration"],
        "token_reduction": {"method": "mustdrop", "format": 3, "keep_ratio": 0.25},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / PICTURE).touch()
    Manifest(
        package_version="1.2.3",
        variant="llava_next_mustdrop",
        form="config",
        base_model="owner/base",
        base_revision=COMMIT,
        bundled=False,
        license="llama2",
        base_reduction={"method": "mustdrop", "format": 3},
        tuned=False,
        stages=["vision, layer 0, after block", "prefill, layer 2, after block"],
        example_tokens={"full": [192], "layers": [[180, 180, 24, 24]]},
        self_check="weights",
    ).write(folder)
    return folder


def run_file(model: str, model_args: str, tasks: dict[str, float], *, seconds: float = 0.25, **config) -> dict:
    """A results file as lmms-eval writes it, as far as a card reads it; tasks have 100 questions, or more of them."""
    original = 100 if config.get("limit") is None else 400
    return {
        "results": {
            task: {"alias": task, "score,none": value, "score_stderr,none": 0.01} for task, value in tasks.items()
        },
        "configs": {task: {"dataset_path": "owner/questions" if task == "gqa" else "parquet"} for task in tasks},
        "n-samples": {task: {"original": original, "effective": 100} for task in tasks},
        "config": {"model": model, "model_args": model_args, "limit": None, "device": "cpu", **config},
        "throughput": {
            "avg_visual_tokens": 48.25,
            "avg_full_visual_tokens": 192.0,
            "avg_kv_bytes": 605000.0,
            "avg_seconds": seconds,
            "avg_n": 100.0,
        },
    }


def write_results(folder: Path) -> Path:
    """Write results of both models, of other settings, and of a benchmark."""
    base = f"pretrained=owner/base,revision={COMMIT}"
    runs = {
        FULL: run_file("llava_next_full", base, {"gqa": 0.5}, seconds=0.5),
        REDUCED: run_file("llava_next_mustdrop", f"{base},keep_ratio=0.25", {"gqa": 0.375}),
        "h_results.json": run_file(
            "llava_next_mustdrop",
            "pretrained=you/exported,revision=v1.2.3",
            {"pope": 0.75, "own_task": 0.25},
            limit=100.0,
        ),
        **{
            f"other_{number}_results.json": run_file(model, model_args, {"gqa": 0.9})
            for number, (model, model_args) in enumerate(OTHERS)
        },
        "shifted_results.json": run_file("llava_next_mustdrop", f"{base},keep_ratio=0.25", {"gqa": 0.9}, offset=50),
    }
    (folder / "runs").mkdir(parents=True)
    for name, run in runs.items():
        (folder / "runs" / name).write_text(json.dumps(run))
    (folder / "speed_32x512.json").write_text(json.dumps(SPEED))
    return folder


def with_card(folder: Path, name: str, tag: str | None = None) -> Path:
    """Make the folder's card for a repository."""
    card, _ = folder_card(folder, name, tag=tag)
    card.save(folder / CARD)
    return folder


def changed(folder: Path, **values) -> None:
    replace(Manifest.read(folder), **values).write(folder)


def rendered(folder: Path, results: Path, *more: str) -> str:
    command = ["card", str(folder), "you/exported", "--results", str(results), *more]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return (folder / CARD).read_text()


def row(card: str, task: str) -> list[str]:
    [line] = [line for line in card.splitlines() if line.startswith(f"| `{task}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]
