"""Time functions in turn, so that what else a machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds since some moment, after all work that a device was given is done."""

    def now() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return now


def seconds_in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after a round that is not timed.

    Every second round goes through the functions backwards.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1 + rounds):
        for name in list(runs) if number % 2 else reversed(runs):
            start = clock()
            runs[name]()
            if number:
                times[name].append(clock() - start)
    return times
