"""The command ``lmms-tokendrop train``. Its options are those of `TrainingOptions`."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from lmms_tokendrop.training.options import POCKET_SCENES, TrainingOptions, kind
from lmms_tokendrop.training.recipes import RECIPES
from lmms_tokendrop.user_errors import one_line_errors

SOURCES = ("pretrained", "teacher", "labels", "data", "eval_data")
LOCAL_NAMES = ("pocket", "pocket-teacher", POCKET_SCENES)


def train(recipe: str | None, output: Path, resume: bool, **given: Any) -> None:
    """Train or fine-tune an encoder with a reduction, with or without a teacher."""
    chosen = {name: value for name, value in given.items() if value is not None}
    sources = [chosen[name] for name in SOURCES if name in chosen]
    if all(source in LOCAL_NAMES or Path(source).exists() for source in sources):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets
    from transformers.utils import logging

    from lmms_tokendrop.training.run import prepare

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()

    with one_line_errors(FloatingPointError):
        run = prepare(read_options(recipe, chosen), output, resume)
        results = run.train()
    if run.trainer.is_world_process_zero():
        shown = {name: results[name] for name in ("steps", "seconds", "best_step", "evaluation")}
        typer.echo(f"{output}: {json.dumps(shown)}")


def read_options(recipe: str | None, given: Mapping[str, Any]) -> TrainingOptions:
    """Put options together from a recipe and what was given beside it, which counts more.

    Parameters
    ----------
    recipe
        Key of `RECIPES`, or None.
    given
        Options as typed; those that hold several values as `key=value,key=value`.

    Raises
    ------
    ValueError
        If an option or the recipe is wrong, or if the recipe distils and no teacher is named.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}; allowed: {', '.join(map(repr, RECIPES))}")
    parsed = {
        entry.name: parse_pairs(entry.name, given[entry.name]) if kind(entry) is dict else given[entry.name]
        for entry in fields(TrainingOptions)
        if entry.name in given
    }
    base = {} if recipe is None else dict(RECIPES[recipe])
    if "max_steps" in parsed:
        base.pop("epochs", None)
    if parsed.get("method", base.get("method")) != base.get("method"):
        base.pop("reduction", None)
    options = TrainingOptions(**{**base, **parsed})
    if recipe is not None and options.method != "none" and options.teacher is None and options.kd_weight != 0:
        raise ValueError(
            f"teacher: recipe {recipe!r} distils; name its teacher, an unreduced fine-tune (method='none' beside the "
            "recipe trains one), or give kd_weight=0 to train without"
        )
    return options


def parse_pairs(name: str, text: str) -> dict[str, Any]:
    """Read `key=value,key=value` as ``--model_args`` of lmms-eval is read; the names of `columns` stay texts."""
    from lmms_eval.utils import handle_arg_string

    from lmms_tokendrop.evaluation.arguments import parse_list

    pairs = [part.partition("=")[::2] for part in text.split(",")]
    if not all(key and value for key, value in pairs) or len(dict(pairs)) < len(pairs):
        raise ValueError(f"{name}={text!r}; allowed: key=value,key=value, each key once")
    readers: dict[str, Callable[[str], Any]] = {"layers": parse_list} if name == "reduction" else {}
    read = str if name == "columns" else handle_arg_string
    return {key: readers.get(key, read)(value) for key, value in pairs}


def _parameters() -> list[inspect.Parameter]:
    """The command's parameters: its own three, then one for every field of `TrainingOptions`."""

    def parameter(name: str, typed: Any, default: Any, **about: Any) -> inspect.Parameter:
        annotation = Annotated[typed, typer.Option(**about)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    recipes = f"Published setting: {', '.join(RECIPES)}. Options given beside it count more."
    own = [
        parameter("output", Path, inspect.Parameter.empty, help="New folder for model, log, results and checkpoints."),
        parameter("recipe", str | None, None, help=recipes),
        parameter("resume", bool, False, help="Go on from the last checkpoint in the folder."),
    ]
    for entry in fields(TrainingOptions):
        about = entry.metadata
        typed = str if kind(entry) is dict else kind(entry)
        values = f" Allowed: {', '.join(about['allowed'])}." if isinstance(about["allowed"], tuple) else ""
        default = "" if entry.default is None or entry.default is False else f" Default: {entry.default}."
        own.append(
            parameter(
                entry.name, typed | None, None, help=about["help"] + values + default, rich_help_panel=about["group"]
            )
        )
    return own


vars(train)["__signature__"] = inspect.Signature(_parameters())
train.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters()}
