"""PuMer's protocol for throughput (arXiv 2305.17530, section 5): the best batch size, then timed batches.

The paper runs one model after the other. Here short windows of all models alternate, so that what else the machine does
meets all of them, and speed-ups are medians of ratios within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lmms_tokendrop.bench.peak_memory import MemoryUse, memory_use

BATCH_STEP = 8
PROBE = 8


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def examples_per_second(
    run: Callable[[], None], batch_size: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run whole batches for at least `seconds`, and one batch at least.

    Parameters
    ----------
    run
        Runs one batch.
    batch_size
        Its examples.
    seconds
        Shortest duration.
    clock
        Seconds since some moment.
    """
    start, batches, elapsed = clock(), 0, 0.0
    while not batches or elapsed < seconds:
        run()
        batches += 1
        elapsed = clock() - start
    return batch_size * batches / elapsed


def try_batch_sizes(
    run: Callable[[int], None],
    sizes: Iterable[int],
    memory_limit: float,
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    measure_memory: Callable[[Callable[[], None]], MemoryUse] = memory_use,
) -> dict[int, float]:
    """Raise the batch size until throughput falls twice in a row or memory would not suffice.

    Parameters
    ----------
    run
        Runs one batch of the given size.
    sizes
        Batch sizes, rising.
    memory_limit
        Bytes that the process may take. The peak of the next batch size is predicted from that of the one before, in
        proportion to the batch size, and for the first from a batch of `PROBE`.
    seconds
        Shortest time for a batch size, after a warm-up.
    clock, measure_memory
        What is asked for the time, and for the memory of an action.

    Returns
    -------
    dict[int, float]
        Examples per second of each batch size tried.

    Raises
    ------
    MemoryError
        If the first batch size would not fit.
    """
    known, used = PROBE, measure_memory(lambda: run(PROBE))
    rates: dict[int, float] = {}
    for batch_size in sizes:
        predicted = used.before + (used.peak - used.before) * batch_size / known
        if predicted > memory_limit:
            if rates:
                break
            raise MemoryError(
                f"a batch of {batch_size} would take {predicted / 1e9:.1f} GB and {memory_limit / 1e9:.1f} GB are "
                "allowed; allow a larger share with --max-memory, or give --batch-size"
            )
        known, used = batch_size, measure_memory(lambda size=batch_size: run(size))
        rates[batch_size] = examples_per_second(lambda size=batch_size: run(size), batch_size, seconds, clock)
        recent = list(rates.values())[-3:]
        if len(recent) == 3 and recent[0] > recent[1] > recent[2]:
            break
    return rates


def alternate(
    runs: Mapping[str, Callable[[], None]],
    batch_sizes: Mapping[str, int],
    seconds: float,
    window: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time several models in turn, round after round, until each has run for long enough.

    Parameters
    ----------
    runs
        By name, runs one batch. Each is called once before the first round.
    batch_sizes
        By name, examples of that batch.
    seconds
        Shortest time of each over all rounds; there is one round at least.
    window
        Shortest time of each in a round.
    clock
        Seconds since some moment.

    Returns
    -------
    dict[str, list[float]]
        Examples per second in each round.
    """
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    while not all(rates.values()) or min(spent.values()) < seconds:
        for name, run in runs.items():
            start = clock()
            rates[name].append(examples_per_second(run, batch_sizes[name], window, clock))
            spent[name] += clock() - start
    return rates


def speed_up(rates: list[float], baseline: list[float]) -> Spread:
    """Ratios of two models' examples per second, round by round."""
    return Spread.of([rate / other for rate, other in zip(rates, baseline, strict=True)])
