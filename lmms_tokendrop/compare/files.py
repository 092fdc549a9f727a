"""The files of a comparison: one for each run, written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.json_files import read_json_object

PACKAGES = ("lmms-tokendrop", "torch", "transformers", "lmms-eval", "accelerate")
ENDINGS = ("result", "not_reachable", "failed")
"""Keys of which a file has one: what was measured, or why there is nothing."""


def write_run(folder: Path, setting: Setting, run: Run, **ending: Any) -> None:
    """Write what became of a run, with what it was, and the versions that it ran with.

    Parameters
    ----------
    folder
        Of the comparison.
    setting, run
        What was run.
    **ending
        One of `ENDINGS`, and with a result the calibration, if there was one.
    """
    versions = {name: version(name) for name in PACKAGES}
    write_json(
        folder / run.file,
        {**asdict(run), "setting": asdict(setting), "versions": versions, "commit": commit(), **ending},
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file of an object at once, so that no kill leaves a part of one. Each of its entries is a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def commit() -> str | None:
    """The commit of the source tree that this package runs from, ``-dirty`` behind it if files differ; else None."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def unfinished(folder: Path, setting: Setting, runs: Sequence[Run]) -> list[Run]:
    """The runs that have no result yet; those that failed before are among them, and their files are removed.

    Raises
    ------
    ValueError
        If a file is of something else than the run of its name; names the file and the difference.
    """
    missing = []
    for run in runs:
        path = folder / run.file
        if not path.exists():
            missing.append(run)
            continue
        found = read_json_object(path)
        _check_same(path, found, {**asdict(run), "setting": asdict(setting)})
        if "failed" in found:
            path.unlink()
            missing.append(run)
    return missing


def _check_same(path: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    was = {**found, **found.get("setting", {})}
    for name, value in {**asked, **asked["setting"]}.items():
        if name != "setting" and was.get(name) != value:
            raise ValueError(f"{path} was run with {name}={was.get(name)!r}, not {value!r}; name another folder")
