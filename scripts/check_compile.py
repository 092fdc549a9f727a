"""Compile models with every method: ten batches of one shape, their graphs and their answers.

They are the bundled ones, and a LLaVA-1.5 with random weights. Prints a table and exits with 1 if a bound is broken: at
most twice the graphs of the stock class, and for a method some more for the halves of layers in which tokens leave;
nothing compiled from the third batch on; answers as uncompiled.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor

from lmms_tokendrop import pocket_path
from lmms_tokendrop.benchmark.compiled_graphs import CompiledRun, classified, generated, run_compiled
from lmms_tokendrop.catalogue import architecture as family_of
from lmms_tokendrop.catalogue import architectures
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from keyed_weights import with_clip
from tiny_models import save_tiny_llava

QUESTIONS = ("what colour is the circle ?", "how many squares are there above the red ring ?")
TOLERANCE = 1e-4
MORE = {"mustdrop": {"decode_interval": 2}, "pumer": {"reference": "release"}}
"""Options of methods that are run once more with them."""
ROOM = {"fusion": 8, "co_attention": 16}
"""How many graphs more a method may have, by the first word of what its architecture provides."""

Name = StrEnum("Name", [family.name for family in architectures()])


def token_reductions(name: str, path: Path) -> Iterator[dict[str, Any]]:
    for method in reductions(name).reducers:
        required = reductions(name).options_of(method).required
        yield with_clip({"method": method, **dict.fromkeys(required, "clip")}, path, 64 if name == "llava" else 192)
        if method in MORE:
            yield {"method": method, **MORE[method]}


def batches(path: Path, count: int, *, generates: bool) -> list[dict[str, torch.Tensor]]:
    """Two questions about two pictures, padded, for `count` pairs of pictures."""
    processor = AutoProcessor.from_pretrained(path)
    texts = [f"USER: <image>\n{text} ASSISTANT:" if generates else text for text in QUESTIONS]
    pictures = [render(scene) for scene, _ in islice(task_scenes(), 2 * count)]
    pairs = zip(pictures[::2], pictures[1::2], strict=True)
    return [dict(processor(images=list(pair), text=texts, padding=True, return_tensors="pt")) for pair in pairs]


def runs(name: str, path: Path, scratch: Path, count: int) -> Iterator[tuple[dict[str, Any] | None, CompiledRun]]:
    """Of the stock class, without options, and of every reduction; a method's own parameters start at random."""
    family = family_of(name)
    head = family.heads[0]
    reduced = family.load(family.model_class(head))
    answer, inputs = generated if family.generates else classified, batches(path, count, generates=family.generates)
    new = (f"{reduced.base_model_prefix}.token_reducer.",)
    stock = family.load(family.stock_class(head)).from_pretrained(path, dtype=torch.float32)
    yield None, run_compiled(stock.eval(), answer, inputs)
    for options in token_reductions(name, scratch):
        model = reduced.from_pretrained(path, dtype=torch.float32, token_reduction=options, new_parameters=new)
        yield options, run_compiled(model.eval(), answer, inputs)


def main(
    architecture: Annotated[list[Name] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    requests: Annotated[int, typer.Option(min=3, help="Batches that each model answers.")] = 10,
) -> None:
    """Compile, count and compare."""
    table = Table("architecture", "method", "graphs", "stock's graphs", f"compiled in 3 to {requests}", "as uncompiled")
    broken = 0
    for name in architecture or Name:
        family = family_of(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(pocket_path(name, "none")) if family.pocket else save_tiny_llava(Path(folder))
            (_, stock), *reduced = runs(name, path, Path(folder), requests)
        for options, run in reduced:
            method = options["method"]
            equal = run.difference <= TOLERANCE
            room = ROOM.get(family.provides[0], 0) if method != "none" else 0
            broken += not equal or run.late > 0 or run.total > 2 * stock.total + room
            shown = " ".join([method, *(f"{key}={value}" for key, value in options.items() if key != "method")])
            table.add_row(name, shown, str(run.total), str(stock.total), str(run.late), "yes" if equal else "no")
    Console().print(table)
    sys.exit(broken > 0)


if __name__ == "__main__":
    typer.run(main)
