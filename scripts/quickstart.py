"""Set everything up and run the main job: `python3 scripts/quickstart.py`.

Creates the virtual environment `.venv` in the source tree, installs the package into it, and compares the full
model, MustDrop and random dropping on the bundled model and task. Options are those of `lmms-tokendrop demo`, such as
`--limit 200`. Needs Python >= 3.11 and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PROGRAMS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    code = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (the script runs under whatever python3 is)
        sys.exit("lmms_tokendrop needs Python 3.11 or newer")
    python = PROGRAMS / ("python.exe" if os.name == "nt" else "python")
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    print("Installing; torch is large, so the first time takes some minutes.", flush=True)
    run(python, "-m", "pip", "install", "--quiet", "-e", ".[dev,bench]")
    run(PROGRAMS / "lmms-tokendrop", "demo", *sys.argv[1:])


if __name__ == "__main__":
    main()
