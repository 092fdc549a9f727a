"""Try the newest releases that the ranges of `pyproject.toml` allow: `python scripts/check_newest.py`.

Makes an environment of its own, installs the package with its extras and without the lock, runs the main job
(`lmms-tokendrop demo`) and the tests, and prints a table of what was tried. Exits with 1 if either failed. `--fast`
leaves out the slow tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from refresh_lock import EXTRAS, ROOT, constraint_files
from rich.console import Console
from rich.table import Table


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Return the requirements of a file's lines that hold here, by package."""
    texts = (line.partition("#")[0].strip() for line in lines)
    found = [Requirement(text) for text in texts if text]
    return {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate()}


def direct_dependencies() -> list[str]:
    """Return the packages that `pyproject.toml` names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return list(requirements([*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])]))


def install(python: Path) -> dict[str, str]:
    """Install the package with its extras; return all versions."""
    pip = [python, "-m", "pip"]
    subprocess.run([*pip, "install", "-qq", "-e", f".[{','.join(EXTRAS)}]"], cwd=ROOT, check=True)
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True).stdout
    return {canonicalize_name(entry["name"]): entry["version"] for entry in json.loads(listed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave out the slow tests")
    arguments = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder, "bin", "python")
        newest = install(python)
        markers = [] if arguments.fast else ["-m", "not browser"]
        commands = {
            "main job": [Path(folder, "bin", "lmms-tokendrop"), "demo", "--limit", "64"],
            "tests": [python, "-m", "pytest", "-n", "2", *markers, "--deselect", "tests/test_lock.py"],
        }
        codes = {
            name: subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
            for name, command in commands.items()
        }
    outcome = ", ".join(f"{name} {'failed' if code else 'passed'}" for name, code in codes.items())
    locked = requirements((ROOT / "requirements.txt").read_text().splitlines())
    caps = requirements([line for path in constraint_files() for line in Path(path).read_text().splitlines()])
    table = Table("package", "locked", "newest allowed", "cap on this machine", title=outcome)
    for name in direct_dependencies():
        version = str(locked[name].specifier).removeprefix("==")
        table.add_row(name, version, newest[name], str(caps[name].specifier) if name in caps else "")
    Console().print(table)
    sys.exit(any(codes.values()))


if __name__ == "__main__":
    main()
