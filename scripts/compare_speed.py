"""Compare how fast two commits are: `compare_speed.py OLD NEW`.

A LLaVA-NeXT with MustDrop, a ViLT-B and a METER with PuMer, each beside the unreduced model, with random weights. The
commits run from worktrees in this environment, each in a process of its own, and take turns pass by pass. Printed are
medians: the speed-up of either commit, and time of NEW over that of OLD, round by round. Nothing else should run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from compare_commits import worktree
from rich.console import Console
from rich.table import Table

from lmms_tokendrop.user_errors import check_output_file, one_line_errors

TIME = Path(__file__).with_name("time_variant.py")
TREES, VARIANTS = ("old", "new"), ("full", "reduced")
IMAGE_TOKEN, IMAGE_TOKENS, TEXT_TOKENS = 999, 5 * 24**2 + 48, 60
"""Of a square image in five tiles of 24 x 24 patches, with a newline behind each of 48 rows."""

CASES: dict[str, dict[str, Any]] = {
    "llava_next": {
        "model": "LlavaNextTokenDrop",
        "head": "ForConditionalGeneration",
        "config": {
            "text_config": {
                "model_type": "llama",
                "hidden_size": 1024,
                "intermediate_size": 2752,
                "num_hidden_layers": 8,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "vocab_size": 1000,
                "max_position_embeddings": 8192,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 336,
                "patch_size": 14,
            },
            "image_grid_pinpoints": [[672, 672]],
            "image_token_index": IMAGE_TOKEN,
        },
        "reduction": {"method": "mustdrop", "visual_tokens": 646, "layers": [0], "newlines": "row"},
    },
    "vilt": {
        "model": "ViltTokenDrop",
        "head": "ForQuestionAnswering",
        "config": {},
        "reduction": {"method": "pumer"},
    },
    "meter": {
        "model": "MeterTokenDrop",
        "head": "ForQuestionAnswering",
        "config": {},
        "reduction": {"method": "pumer"},
    },
}
"""Class, configuration and options; 646 tokens in the mean are 2,928 in one of eight layers and 320 in the others."""

Name = StrEnum("Name", list(CASES))


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    """One image and text for a decoder; four of them for an encoder."""
    generator = torch.Generator().manual_seed(0)
    if name == "llava_next":
        text = torch.randint(10, IMAGE_TOKEN, (TEXT_TOKENS // 2, 2), generator=generator)
        ids = torch.cat([text[:, 0], torch.full((IMAGE_TOKENS,), IMAGE_TOKEN), text[:, 1]]).unsqueeze(0)
        pixels = torch.randn(1, 5, 3, 336, 336, generator=generator)
        return {"input_ids": ids, "pixel_values": pixels, "image_sizes": torch.tensor([[672, 672]])}
    ids = torch.randint(10, 1000, (4, 20), generator=generator)
    return {"input_ids": ids, "pixel_values": torch.randn(4, 3, 384, 384, generator=generator)}


@contextmanager
def process(tree: Path, folder: Path, case: dict[str, Any]) -> Iterator[subprocess.Popen]:
    """The code of a tree, ready to be asked for times."""
    work = folder / f"{tree.name}.json"
    work.write_text(json.dumps({"tree": str(tree), "case": case}))
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, TIME, work], cwd=folder, env=environment, text=True, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


def seconds(asked: subprocess.Popen, variant: str) -> float:
    """Seconds of one pass."""
    print(variant, file=asked.stdin, flush=True)
    answer = asked.stdout.readline()
    if not answer:
        raise ValueError("a commit fails; its traceback is above")
    return float(answer)


def times(trees: Sequence[Path], folder: Path, name: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by tree and variant; each round asks both trees for both, after one round that does not count."""
    torch.save(inputs_of(name), folder / "inputs.pt")
    found = {tree: {variant: [] for variant in VARIANTS} for tree in TREES}
    with ExitStack() as running:
        started = [running.enter_context(process(tree, folder, CASES[name])) for tree in trees]
        for number in range(1 + repeats):
            for variant in VARIANTS:
                turn = zip(TREES, started, strict=True)
                for tree, one in reversed(list(turn)) if number % 2 else turn:
                    found[tree][variant].append(seconds(one, variant))
    return {tree: {variant: taken[1:] for variant, taken in of.items()} for tree, of in found.items()}


def figures(taken: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Medians over rounds: how much faster the reduced model of each tree is, and NEW's time over OLD's."""
    old, new = (taken[tree] for tree in TREES)
    speed_ups = {f"speed_up_{tree}": ratio(taken[tree]["full"], taken[tree]["reduced"]) for tree in TREES}
    return speed_ups | {f"{variant}_new_over_old": ratio(new[variant], old[variant]) for variant in VARIANTS}


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median of the ratios of each round."""
    return median(one / other for one, other in zip(first, second, strict=True))


def main(
    old: Annotated[str, typer.Argument(help="The commit before.")],
    new: Annotated[str, typer.Argument(help="The commit after.")],
    only: Annotated[Name | None, typer.Option(help="One of the models; default: all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Rounds that count.")] = 9,
    output: Annotated[Path | None, typer.Option(help="JSON file for all times.")] = None,
) -> None:
    """Compare the speed of two commits."""
    found: dict[str, Any] = {}
    with one_line_errors(), tempfile.TemporaryDirectory() as scratch:
        check_output_file("output", output)
        place = Path(scratch)
        with worktree(old, place / "old") as before, worktree(new, place / "new") as after:
            for name in list(Name) if only is None else [only]:
                found[name] = times((before, after), place, name, repeats)
    shown = Table("model", "speed-up, OLD", "speed-up, NEW", "unreduced, NEW / OLD", "reduced, NEW / OLD")
    for name, taken in found.items():
        shown.add_row(name, *(f"{value:.3f}" for value in figures(taken).values()))
    Console(width=120).print(shown)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        results = {name: {**figures(taken), "seconds": taken} for name, taken in found.items()}
        output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
