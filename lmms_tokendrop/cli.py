"""The command ``lmms-tokendrop``."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lmms_tokendrop.bench.command import bench
from lmms_tokendrop.compare.command import compare
from lmms_tokendrop.hub.command import app as hub_commands
from lmms_tokendrop.plan.command import plan
from lmms_tokendrop.progress import progress_bar
from lmms_tokendrop.report.command import report
from lmms_tokendrop.show.command import show
from lmms_tokendrop.training.command import train
from lmms_tokendrop.user_errors import one_line_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Vision-language models that drop visual tokens, for lmms-eval.",
)
app.add_typer(hub_commands)


@app.command("list", epilog="Example: lmms-tokendrop list --architecture vilt")
def list_variants(
    architecture: Annotated[str | None, typer.Option(help="Only those of this architecture.")] = None,
    method: Annotated[str | None, typer.Option(help="Only those with this method.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the variants that lmms-eval can run."""
    from lmms_tokendrop.catalogue import variants

    with one_line_errors():
        chosen = variants(architecture=architecture, method=method)
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in chosen], indent=2))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 1, 0))
    for name in ("model", "method", "what it is, default checkpoint"):
        table.add_column(name, no_wrap=name != "what it is, default checkpoint")
    for entry in chosen:
        table.add_row(entry.model_id, entry.method, f"{entry.description}\n{entry.pretrained or 'none: name one'}")
    Console().print(table)


@app.command("tasks-path", epilog="Example: lmms-tokendrop tasks-path")
def print_tasks_path() -> None:
    """Print the folder of the bundled tasks, for lmms-eval --include_path."""
    from lmms_tokendrop.evaluation.tasks_path import tasks_path

    typer.echo(tasks_path())


@app.command(epilog="Example: lmms-tokendrop demo --limit 100 --output out/demo.json")
def demo(
    limit: Annotated[int, typer.Option(help="Number of questions; 0 for all.")] = 500,
    output: Annotated[Path | None, typer.Option(help="Also write the measurements to this JSON file.")] = None,
    task: Annotated[str, typer.Option(help="A bundled generate_until task.")] = "pocket_scenes",
    pretrained: Annotated[str, typer.Option(help="Checkpoint; 'pocket' is the bundled one.")] = "pocket",
    batch_size: Annotated[str, typer.Option(help="A number or 'auto'.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what lmms-eval logs and its progress.")] = False,
) -> None:
    """Compare the full model, MustDrop and random dropping at several budgets."""
    _prepare(pretrained, verbose)
    with one_line_errors(ModuleNotFoundError), nullcontext() if verbose else progress_bar() as progress:
        from lmms_tokendrop.benchmark.comparison import DEMO_RUNS, comparison_table, measure, to_json

        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.open("a").close()
        measurements = measure(
            DEMO_RUNS,
            task=task,
            pretrained=pretrained,
            limit=limit or None,
            batch_size=batch_size,
            device=device,
            progress=progress,
        )
    Console().print(comparison_table(measurements, f"{task}, {measurements[0].samples} questions"))
    if output is not None:
        output.write_text(to_json(measurements))


@app.command(epilog="Example: lmms-tokendrop calibrate --budget 48 --limit 100")
def calibrate(
    budget: Annotated[float, typer.Option(help="Average visual tokens per request.")],
    task: Annotated[str, typer.Option(help="Task that gives images and questions.")] = "pocket_scenes",
    limit: Annotated[int, typer.Option(help="Number of documents.")] = 200,
    pretrained: Annotated[str, typer.Option(help="Checkpoint; 'pocket' is the bundled one.")] = "pocket",
    model: Annotated[str, typer.Option(help="A variant whose counts depend on the data.")] = "llava_next_mustdrop",
    model_args: Annotated[
        str, typer.Option(help="Further options, as for lmms-eval, such as recycling=sum,layers=2+6.")
    ] = "",
    individual_threshold: Annotated[
        float | None, typer.Option(help="MustDrop's threshold that stays as it is; none if not given.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers after which tokens leave, such as 2+6+10+14; the method's if not given.")
    ] = None,
    merge_threshold: Annotated[
        float | None, typer.Option(help="Similarity from which MustDrop's windows merge.")
    ] = None,
    key_ratio: Annotated[
        float | None, typer.Option(help="Share of each tile's tokens that MustDrop never drops.")
    ] = None,
    counter: Annotated[str, typer.Option(help="'input', or 'release' as the MustDrop release counts.")] = "input",
    tolerance: Annotated[float, typer.Option(help="How near the average must come.")] = 1.0,
    batch_size: Annotated[str, typer.Option(help="A number or 'auto'.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda.")] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder of the task; the bundled ones if not given.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what lmms-eval logs and its progress.")] = False,
) -> None:
    """Find the option by which a method whose counts depend on the data meets a budget: MustDrop's threshold, ..."""
    _prepare(pretrained, verbose)
    with one_line_errors(ModuleNotFoundError), Console(stderr=True).status("loading") as status:
        from lmms_eval.utils import simple_parse_args_string

        from lmms_tokendrop.benchmark.calibrate import calibrate as find_value
        from lmms_tokendrop.benchmark.calibrate import calibrated_option, task_batches
        from lmms_tokendrop.catalogue import variant
        from lmms_tokendrop.evaluation import adapters
        from lmms_tokendrop.evaluation.arguments import parse_model_args
        from lmms_tokendrop.modeling.methods.available import reductions

        named = {
            "individual_threshold": individual_threshold,
            "layers": layers,
            "merge_threshold": merge_threshold,
            "key_ratio": key_ratio,
        }
        entry = variant(model)
        calibrated_option(reductions(entry.architecture), entry.method)
        given = {"pretrained": pretrained, "batch_size": batch_size, "device": device, **named}
        given = {name: value for name, value in given.items() if value is not None}
        given.update(simple_parse_args_string(model_args))
        _, reduction = parse_model_args(
            given, method=entry.method, pretrained=pretrained, architecture=entry.architecture
        )
        adapter = getattr(adapters, model)(**given)
        batches = task_batches(adapter, task, limit, include_path)
        status.update(f"trying values on {limit} documents")
        found = find_value(adapter.engine.model, batches, budget, tolerance=tolerance, counter=counter, **reduction)
    for name, value in found.token_reduction.items():
        if isinstance(value, float):
            typer.echo(f"{name}={value:.6g}")
    typer.echo(f"average visual tokens: {found.average:.2f} over {found.samples} samples ({counter} counter)")
    typer.echo(f"token_reduction={json.dumps(found.token_reduction)}")


app.command(epilog="Example: lmms-tokendrop compare --methods mustdrop,fastv --budgets 50%,25%")(compare)
app.command(epilog="Example: lmms-tokendrop report model_cards/results --out out/report")(report)
app.command()(plan)
app.command(
    epilog="Example: lmms-tokendrop train --recipe vilt-vqav2 --teacher TEACHER --data DATA --output runs/vilt"
)(train)
app.command()(bench)
app.command(epilog="Example: lmms-tokendrop show picture.jpg 'what color is the cross?' --model-args keep_ratio=0.25")(
    show
)


def _prepare(pretrained: str, verbose: bool) -> None:
    """Show warnings only unless asked for more, and stay off the network if the checkpoint is here."""
    if pretrained in ("pocket", "pocket-teacher") or Path(pretrained).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if verbose:
        return
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from datasets import disable_progress_bars
    from lmms_eval import evaluator
    from loguru import logger
    from tqdm import tqdm
    from transformers.utils import logging

    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    # one of its bars does not ask TQDM_DISABLE
    evaluator.tqdm = lambda *args, **options: tqdm(*args, **{**options, "disable": True})


if __name__ == "__main__":
    app()
