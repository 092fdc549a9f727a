"""Start the processes that do the runs, and go on behind a run that ended one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lmms_tokendrop.compare.files import unfinished, write_json, write_run
from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.compare.worker import JOB, ROUNDS, RUNNING
from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.loading import resolve_device
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.results.compared import FULL, without_result

Progress = Callable[[str, int, int], None]
"""Takes what is done, how many of it, and of how many."""

LOG = "compare.log"
"""What the processes write beside their results, in the folder of the comparison."""


@dataclass(frozen=True)
class Machine:
    """How runs are run, which changes no answer.

    Parameters
    ----------
    processes
        How many share the documents of a run.
    batch_size
        A number, or ``"auto"``.
    device
        Such as ``"cpu"``; None takes what accelerate chooses.
    include_path
        Folder of task files; None for the bundled ones.
    offline
        Whether nothing is asked of the Hub.

    Raises
    ------
    ValueError
        For a number, a batch size or a device that can't be.
    """

    processes: int = 1
    batch_size: str = "auto"
    device: str | None = None
    include_path: Path | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes={self.processes}; allowed: 1 or more")
        Batches(self.batch_size, torch.device("cpu"))
        if self.device is not None:
            resolve_device(self.device)

    def command(self, *arguments: str) -> list[str]:
        """What starts the processes of a module."""
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(self.processes)]
        launcher += ["--num_machines", "1", "--main_process_port", "0"]
        return [sys.executable, *(launcher if self.processes > 1 else ()), "-m", *arguments]

    def environment(self) -> dict[str, str]:
        """What the processes find in their environment."""
        here = {"TQDM_MININTERVAL": "30"}
        if self.offline:
            here["HF_HUB_OFFLINE"] = "1"
        if self.device == "cpu" or not torch.accelerator.is_available():
            here["ACCELERATE_USE_CPU"] = "true"  # with it the launcher of several GPUs starts processes on the CPU
        return {**here, **os.environ}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, and clear it of what a kill left; a ValueError if another comparison holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"out={str(folder)!r}: another comparison writes there; allowed: one at a time") from None
        for part in folder.rglob("*.part"):
            part.unlink()
        yield


def do_runs(
    folder: Path,
    setting: Setting,
    runs: Sequence[Run],
    machine: Machine,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> None:
    """Do the runs that have no result yet.

    Parameters
    ----------
    folder
        Of the comparison.
    setting, runs
        What is run.
    machine
        How.
    tell
        Takes a line for each run that ended.
    progress
        Is told after each.

    Raises
    ------
    ValueError
        If a file there is of something else, or if the unreduced model fails.
    OSError
        If the processes did not come to the first run, or left one out.
    """
    pending = unfinished(folder, setting, runs)

    def ended(line: str) -> None:
        tell(line)
        if progress is not None:
            progress("runs", sum((folder / run.file).exists() for run in runs), len(runs))

    while pending:
        status = _work(folder, setting, pending, machine, ended, timed=False)
        left = [run for run in pending if not (folder / run.file).exists()]
        if status:
            at = _running(folder, pending)
            if at in left:
                left.remove(at)
                write_run(folder, setting, at, failed=f"its process ended with status {status}, see {LOG}")
            found = read_json_object(folder / at.file)
            if at.label == FULL and "failed" in found:
                raise ValueError(f"{at.name}: {found['failed']}; there is nothing to compare with")
            if "result" not in found:
                ended(f"{at.name}: {without_result(found)}")
        elif left:
            raise OSError(f"{left[0].name}: its process ended without a result; what it wrote is in {folder / LOG}")
        pending = left


def time_runs(
    folder: Path,
    setting: Setting,
    runs: Sequence[Run],
    machine: Machine,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> None:
    """Measure the time of the runs that have a result; arguments as of :func:`do_runs`.

    Raises
    ------
    OSError
        If a process ends before that.
    """
    there = [run for run in runs if "result" in read_json_object(folder / run.file)]

    def ended(line: str) -> None:
        tell(line)
        if progress is not None:
            rounds = (len(read_json_object(folder / run.file).get("seconds", ())) for run in there)
            progress("timed runs", sum(rounds), ROUNDS * len(there))

    if _work(folder, setting, there, machine, ended, timed=True):
        raise OSError(f"the time was not measured to the end; the reason is in {folder / LOG}")


def _work(
    folder: Path, setting: Setting, runs: Sequence[Run], machine: Machine, tell: Callable[[str], None], *, timed: bool
) -> int:
    """Give processes a job, and return the status that they end with."""
    (folder / RUNNING).unlink(missing_ok=True)
    options: dict[str, Any] = {"batch_size": machine.batch_size, "device": machine.device, "timed": timed}
    options["include_path"] = machine.include_path and str(machine.include_path)
    write_json(folder / JOB, {"setting": asdict(setting), "runs": [asdict(run) for run in runs], **options})
    return start(folder, machine, tell)


def start(folder: Path, machine: Machine, tell: Callable[[str], None]) -> int:
    """Start the processes, tell what they print, a line at a time, and return the status that they end with.

    If this process ends, they do.
    """
    command = machine.command("lmms_tokendrop.compare.worker", str(folder))
    with (
        (folder / LOG).open("a") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=machine.environment()
        ) as processes,
    ):
        for line in processes.stdout:
            tell(line.rstrip("\n"))
        return processes.wait()


def _running(folder: Path, runs: Sequence[Run]) -> Run:
    """The run that the processes were at."""
    if not (folder / RUNNING).exists():
        raise OSError(f"no run was started; the reason is in {folder / LOG}")
    name = (folder / RUNNING).read_text()
    return next(run for run in runs if run.file == name)
