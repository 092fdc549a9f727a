"""What measurements were made on: the machine, versions, and the commit of this package."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

import lmms_tokendrop

CPU_INFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, versions and commit, as JSON types.

    Parameters
    ----------
    device
        What was measured on.

    Returns
    -------
    dict
        `machine`, `processor`, `threads`, `python`, `torch`, `transformers`, `lmms_tokendrop`, and `commit`, which is
        None where the package is no checkout, and ends in `+` where files differ from it.
    """
    on_cuda = device.type == "cuda"
    return {
        "machine": torch.cuda.get_device_name(device) if on_cuda else f"{platform.machine()} {device.type.upper()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "lmms_tokendrop": lmms_tokendrop.__version__,
        "commit": commit(Path(lmms_tokendrop.__file__).parents[1]),
    }


def commit(folder: Path) -> str | None:
    """The commit of a checkout, with `+` if tracked files differ from it; None where a folder is no checkout."""
    if not (folder / ".git").exists():
        return None
    found = _git(folder, "rev-parse", "HEAD")
    return f"{found}+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else found


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _processor() -> str:
    """The name that Linux gives the processor."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
