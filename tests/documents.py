"""The README and the pages of `docs`, and the code blocks in them."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.name: path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
ACTIVATE = "source .venv/bin/activate\n"


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def paste(commands: str, folder: Path, **variables: str) -> str:
    """Run commands in a shell that was just opened in a folder, with nothing of this environment on its path.

    Parameters
    ----------
    commands
        What is pasted; the first that fails ends the shell.
    folder
        Where the shell is.
    **variables
        Its environment, beside a home of its own, no network and one thread.

    Returns
    -------
    str
        What the commands printed. Raises AssertionError with the end of their errors if one fails.
    """
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join(entry for entry in os.environ["PATH"].split(os.pathsep) if entry != programs)
    home = {"HOME": str(folder / "home"), "HF_HOME": str(folder / "home" / "huggingface")}
    settings = {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **home, **variables}
    finished = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=folder,
        env=settings,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, f"{finished.stdout[-1000:]}\n{finished.stderr[-3000:]}"
    return finished.stdout
