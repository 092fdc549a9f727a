"""The process that does the runs of a comparison, alone or as one of several under ``accelerate launch``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lmms_tokendrop.compare.calibrating import calibrated
from lmms_tokendrop.compare.evaluating import evaluated
from lmms_tokendrop.compare.files import write_json, write_run
from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.modeling.core.budget import UnreachableBudget

JOB = ".job.json"
"""What the process is to do, in the folder of the comparison."""

RUNNING = ".running"
"""Beside it, the file of the run that the process is at."""

ROUNDS = 3
TIMED_DOCUMENTS = 96


def main(folder: Path) -> None:
    """Do the job of a folder: every run, or rounds in which each is timed.

    What ends a run ends the process too, so that it harms no other run; the run's file says why.
    """
    job = read_json_object(folder / JOB)
    setting, runs = Setting(**job["setting"]), [Run(**run) for run in job["runs"]]
    options = {name: job[name] for name in ("batch_size", "device")}
    options["include_path"] = job["include_path"] and Path(job["include_path"])
    if job["timed"]:
        _time(folder, setting, runs, options)
        return
    for run in runs:
        if _is_first():
            (folder / RUNNING).write_text(run.file)
        try:
            found = calibrated(setting, run, options) if run.calibrates else None
            result = evaluated(setting, with_value(run, found and found.value), limit=setting.limit, **options)
        except UnreachableBudget as error:
            write_run(folder, setting, run, not_reachable=" ".join(str(error).split()))
            sys.exit(1)
        except (ValueError, OSError, RuntimeError) as error:
            write_run(folder, setting, run, failed=f"{type(error).__name__}: {' '.join(str(error).split())}")
            raise
        if result is not None:
            kept = {name: value for name, value in asdict(result).items() if name != "seconds"}
            calibration = {} if found is None else {"calibration": asdict(found)}
            write_run(folder, setting, run, result=kept, **calibration)
            print(f"{run.name}: {result.value:.4g}", flush=True)


def _time(folder: Path, setting: Setting, runs: list[Run], options: Mapping[str, Any]) -> None:
    """Add a round to the runs that have fewest until all have `ROUNDS`: a round is every run once."""
    for number in range(ROUNDS):
        for run in runs:
            found = read_json_object(folder / run.file)
            if len(found.get("seconds", ())) > number:
                continue
            value = found.get("calibration", {}).get("value")
            result = evaluated(setting, with_value(run, value), limit=TIMED_DOCUMENTS, **options)
            if result is not None:
                seconds = [*found.get("seconds", ()), result.seconds]
                write_json(folder / run.file, {**found, "seconds": seconds})
                print(f"{run.name}, round {number + 1}: {1000 * seconds[-1]:.4g} ms", flush=True)


def with_value(run: Run, value: float | None) -> Run:
    """The run with the value that was found for the option that it calibrates."""
    return run if value is None else replace(run, options={**run.options, run.calibrates: value})


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _end_with_parent() -> None:
    """End when the command that started this process has ended: then standard input does."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(Path(sys.argv[1]))
