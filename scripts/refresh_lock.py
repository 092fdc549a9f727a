"""Resolve the dependencies of `pyproject.toml` anew: `python scripts/refresh_lock.py`.

Writes `requirements.txt`, the newest versions that the ranges and the machine's pip constraints allow, for every
platform and Python version that is supported, and `requirements-lowest.txt`, the lowest versions of what
`pyproject.toml` names, for this platform.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("train", "bench", "dev")
PYTHON = "3.11"


def constraint_files() -> list[str]:
    """Return the constraint files that this machine's pip is configured with."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = (line.partition("=") for line in listed.stdout.splitlines())
    return [path for name, _, value in settings if name.endswith(".constraint") for path in value.strip("'\"").split()]


def resolve(output: str, *options: str) -> None:
    """Run `uv pip compile` on `pyproject.toml`, from nothing."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-annotate", "--upgrade"]
    command += ["--prerelease=disallow", f"--python-version={PYTHON}", f"--output-file={output}"]
    command += ["--custom-compile-command=python scripts/refresh_lock.py"]
    command += [f"--extra={extra}" for extra in EXTRAS]
    subprocess.run([sys.executable, "-m", *command, *options], cwd=ROOT, check=True)
    print(f"{output}: {sum('==' in line for line in (ROOT / output).read_text().splitlines())} packages")


def main() -> None:
    constraints = [f"--constraint={path}" for path in constraint_files()]
    resolve("requirements.txt", "--universal", *constraints)
    resolve("requirements-lowest.txt", "--resolution=lowest-direct")


if __name__ == "__main__":
    main()
