"""The command ``lmms-tokendrop compare``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from lmms_tokendrop.catalogue import POCKET
from lmms_tokendrop.progress import progress_bar
from lmms_tokendrop.report.command import check_drawing
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors


def compare(
    task: Annotated[str, typer.Option(help="Tasks of lmms-eval, separated by commas.")] = "pocket_scenes",
    pretrained: Annotated[str, typer.Option(help="Checkpoint; 'pocket' is the bundled one.")] = "pocket",
    architecture: Annotated[
        str | None, typer.Option(help="Of the checkpoint; needed where it is 'pocket' and not llava_next.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas, each with options behind colons if it has some: "
            "mustdrop,mustdrop:key_ratio=0. An option may be 'calibrated': mustdrop:global_threshold=calibrated. "
            "Default: all but those with an option that must be given."
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            help="Further methods, written like the others, of which only the best at each budget is run: on the first "
            "500 documents of the task's own _validation. Such as compositions: composed:vision=scope:decoder=fastv."
        ),
    ] = None,
    budgets: Annotated[
        str, typer.Option(help="Shares of the visual tokens, or average numbers of them, separated by commas.")
    ] = "50%,25%,11%",
    counter: Annotated[
        str, typer.Option(help="What budgets count: what a layer receives ('input') or its drop leaves ('release').")
    ] = "input",
    calibrate_on: Annotated[
        str | None, typer.Option(help="Task on which options are calibrated. Default: the task's own _validation.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of methods that draw at random.")] = "0,1,2",
    limit: Annotated[int, typer.Option(help="The first so many documents of each task; 0 for all.")] = 0,
    metric: Annotated[str | None, typer.Option(help="Score of the task. Default: the first that it names.")] = None,
    model_args: Annotated[
        str, typer.Option(help="More for loading the checkpoint, as for lmms-eval: dtype=bfloat16,revision=main.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report.")] = Path("out/compare"),
    processes: Annotated[int, typer.Option(help="More than one: by accelerate launch.")] = 1,
    time: Annotated[bool, typer.Option("--time", help="Also measure the time; the machine must be idle.")] = False,
    batch_size: Annotated[str, typer.Option(help="A number or 'auto'.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda.")] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder of the tasks; the bundled ones if not given.")
    ] = None,
) -> None:
    """Compare methods at equal average tokens on tasks of lmms-eval. Goes on where it was stopped."""
    with one_line_errors(ModuleNotFoundError):
        check_output_folder("out", out)
        check_drawing()
        from lmms_eval.utils import simple_parse_args_string

        from lmms_tokendrop.compare.choosing import Choice
        from lmms_tokendrop.compare.launch import Machine, do_runs, held, time_runs
        from lmms_tokendrop.compare.plan import architecture_of, listed, numbers, planned
        from lmms_tokendrop.compare.runs import Setting
        from lmms_tokendrop.evaluation.task_managers import task_manager
        from lmms_tokendrop.report.kinds import read_sections
        from lmms_tokendrop.report.writing import PAGE, write_report

        here = pretrained.startswith(POCKET) or Path(pretrained).exists()
        if limit < 0:
            raise ValueError(f"limit={limit}; allowed: 1 or more, or 0 for all")
        machine = Machine(processes, batch_size, device, include_path, offline=here)
        further = dict(simple_parse_args_string(model_args))
        found = architecture or architecture_of(pretrained, further.get("revision"))
        setting = Setting(found, pretrained, limit or None, metric, further)
        tasks = listed(task)
        named = None if methods is None else listed(methods)
        runs = planned(setting, tasks, named, listed(budgets), counter, numbers("seeds", seeds), calibrate_on)
        choice = None
        if candidates is not None:
            choice = Choice(setting, tasks, listed(candidates), listed(budgets), counter, numbers("seeds", seeds))
        tried = [] if choice is None else choice.trials()
        others = (run.calibrate_on if run.calibrates else run.task for run in (*runs, *tried))
        task_manager(dict.fromkeys(chain(tasks, others)), include_path)
        with held(out), progress_bar() as progress:
            do_runs(out, setting, runs, machine, typer.echo, progress)
            if choice is not None:
                do_runs(out, choice.trial_setting, tried, machine, typer.echo, progress)
                winners = choice.winners(out)
                do_runs(out, setting, winners, machine, typer.echo, progress)
                runs += [run for run in winners if run not in runs]
            if time:
                time_runs(out, setting, runs, machine, typer.echo, progress)
            report = write_report(read_sections(out), out, f"Methods compared on {', '.join(tasks)}", progress)
    typer.echo(report)
    typer.echo(out / PAGE)
