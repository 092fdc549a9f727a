"""Set everything up and run the main job: `python3 scripts/quickstart.py`.

Creates the virtual environment `.venv` in the source tree, installs the locked dependencies (`requirements.txt`) and
the package into it, and compares the full model, MustDrop and random dropping on the bundled model and task. Options
are those of `lmms-tokendrop demo`, such as `--limit 200`. Needs Python >= 3.11 and nothing else. What an aborted run
left behind is made anew.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WINDOWS = os.name == "nt"


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    code = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def prepare(environment: Path) -> Path:
    """Return the folder of the environment's programs; without a working pip the environment is made anew."""
    programs = environment / ("Scripts" if WINDOWS else "bin")
    if has_pip(programs / ("python.exe" if WINDOWS else "python")):
        return programs
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            sys.exit(
                f"This Python has no module {module}, so no virtual environment can be made. On Debian and Ubuntu it "
                "is in the package python3-venv: sudo apt install python3-venv"
            )
    import venv

    venv.create(environment, clear=True, with_pip=True)
    return programs


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (the script runs under whatever python3 is)
        sys.exit("lmms_tokendrop needs Python 3.11 or newer")
    programs = prepare(ROOT / ".venv")
    print("Installing; torch is large, so the first time takes some minutes.", flush=True)
    install = (programs / ("python.exe" if WINDOWS else "python"), "-m", "pip", "install", "-qq")
    run(*install, "-r", "requirements.txt")
    run(*install, "--no-deps", "--no-build-isolation", "-e", ".")
    run(programs / "lmms-tokendrop", "demo", *sys.argv[1:])


if __name__ == "__main__":
    main()
