"""Peak of a process's memory: what is resident, from Linux's `/proc`, or what torch allocated on a GPU."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
M_MMAP_THRESHOLD, SMALL_BYTES = -3, 65536


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a process before an action, and their peak during it."""

    before: int
    peak: int

    @property
    def added(self) -> int:
        """Bytes that the action needed."""
        return self.peak - self.before


def memory_use(action: Callable[[], Any], device: torch.device | None = None) -> MemoryUse:
    """Run an action and watch this process's memory.

    Parameters
    ----------
    action
        What is watched.
    device
        A GPU, whose allocated memory is watched; else the resident memory is.

    Raises
    ------
    OSError
        For resident memory, on systems without Linux's `/proc`.
    """
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return MemoryUse(before, torch.cuda.max_memory_allocated(device))
    CLEAR_REFS.write_text(RESET_PEAK)
    before = _resident("VmRSS")
    action()
    return MemoryUse(before, max(before, _resident("VmHWM")))


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """Return what a function of a module returns in a new process, whose memory nothing has touched before.

    Tensors there go back to the system as soon as they are freed, so that resident memory is memory in use.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=return_freed_memory) as pool:
        return pool.submit(function, *args).result()


def return_freed_memory() -> None:
    """Have this process's C library map each larger block by itself (`mallopt` of glibc)."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, SMALL_BYTES)


def _resident(name: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
