"""Compile the bundled models with every method: ten batches of one shape, their graphs and their answers.

Prints a table and exits with 1 if a bound is broken: at most twice the graphs of the stock class, and for a method some
more for the halves of layers in which tokens leave; nothing compiled from the third batch on; answers as uncompiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoProcessor,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    ViltForQuestionAnswering,
)

from lmms_tokendrop import (
    LlavaNextTokenDropForConditionalGeneration,
    MeterForQuestionAnswering,
    MeterTokenDropForQuestionAnswering,
    ViltTokenDropForQuestionAnswering,
    pocket_path,
)
from lmms_tokendrop.benchmark.compiled_graphs import CompiledRun, classified, generated, run_compiled
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

QUESTIONS = ("what colour is the circle ?", "how many squares are there above the red ring ?")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Compiled:
    """A stock class, its counterpart with methods, how to ask them, and how many graphs more a method may have.

    `more` is a reduction beside one of each method; `loading` lets a method's own parameters start at random.
    """

    stock: Any
    reduced: Any
    answer: Callable
    room: int
    more: dict[str, Any]
    loading: dict[str, Any]


COMPILED = {
    "llava_next": Compiled(
        LlavaNextForConditionalGeneration,
        LlavaNextTokenDropForConditionalGeneration,
        generated,
        0,
        {"method": "mustdrop", "decode_interval": 2},
        {},
    ),
    "vilt": Compiled(
        ViltForQuestionAnswering,
        ViltTokenDropForQuestionAnswering,
        classified,
        8,
        {"method": "pumer", "reference": "release"},
        {"new_parameters": ("vilt.token_reducer.",)},
    ),
    "meter": Compiled(
        MeterForQuestionAnswering,
        MeterTokenDropForQuestionAnswering,
        classified,
        16,
        {"method": "pumer", "reference": "release"},
        {"new_parameters": ("meter.token_reducer.",)},
    ),
}


Name = StrEnum("Name", list(COMPILED))


def token_reductions(name: str) -> Iterator[dict[str, Any]]:
    yield from ({"method": method} for method in reductions(name).reducers)
    yield COMPILED[name].more


def batches(name: str, count: int) -> list[dict[str, torch.Tensor]]:
    """Two questions about two pictures, padded, for `count` pairs of pictures."""
    processor = AutoProcessor.from_pretrained(pocket_path(name, "none"))
    texts = list(QUESTIONS)
    if isinstance(processor, LlavaNextProcessor):
        texts = [f"USER: <image>\n{text} ASSISTANT:" for text in texts]
    pictures = [render(scene) for scene, _ in islice(task_scenes(), 2 * count)]
    pairs = zip(pictures[::2], pictures[1::2], strict=True)
    return [dict(processor(images=list(pair), text=texts, padding=True, return_tensors="pt")) for pair in pairs]


def compiled(name: str, model_class: Any, count: int, **loading) -> CompiledRun:
    model = model_class.from_pretrained(pocket_path(name, "none"), dtype=torch.float32, **loading)
    return run_compiled(model.eval(), COMPILED[name].answer, batches(name, count))


def main(
    architecture: Annotated[list[Name] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    requests: Annotated[int, typer.Option(min=3, help="Batches that each model answers.")] = 10,
) -> None:
    """Compile, count and compare."""
    table = Table("architecture", "method", "graphs", "stock's graphs", f"compiled in 3 to {requests}", "as uncompiled")
    broken = 0
    for name in architecture or COMPILED:
        kind = COMPILED[name]
        stock = compiled(name, kind.stock, requests).total
        for options in token_reductions(name):
            method = options["method"]
            run = compiled(name, kind.reduced, requests, token_reduction=options, **kind.loading)
            equal = run.difference <= TOLERANCE
            broken += not equal or run.late > 0 or run.total > 2 * stock + (kind.room if method != "none" else 0)
            shown = " ".join([method, *(f"{key}={value}" for key, value in options.items() if key != "method")])
            table.add_row(name, shown, str(run.total), str(stock), str(run.late), "yes" if equal else "no")
    Console().print(table)
    sys.exit(broken > 0)


if __name__ == "__main__":
    typer.run(main)
