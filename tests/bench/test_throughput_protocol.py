"""The measuring protocol against a clock that only runs when a model does."""

from itertools import count

import pytest

from lmms_tokendrop.bench.peak_memory import MemoryUse
from lmms_tokendrop.bench.throughput_protocol import (
    Spread,
    alternate,
    examples_per_second,
    speed_up,
    try_batch_sizes,
)


class Machine:
    """A clock, and models whose batches take a stated time."""

    def __init__(self):
        self.now, self.ran = 0.0, []

    def clock(self) -> float:
        return self.now

    def model(self, name: str, *seconds: float):
        """Takes the given seconds in turn."""
        durations = list(seconds)

        def run() -> None:
            self.ran.append(name)
            self.now += durations.pop(0) if len(durations) > 1 else durations[0]

        return run


class Ramp:
    """A model of given examples per second at 32, 40, ... examples, each of which takes 10 bytes beside the 100."""

    def __init__(self, *rates: float):
        self.rates, self.now, self.last = rates, 0.0, 0

    def run(self, batch_size: int) -> None:
        self.last = batch_size
        self.now += batch_size / (1.0 if batch_size == 8 else self.rates[(batch_size - 32) // 8])

    def memory(self, action) -> MemoryUse:
        action()
        return MemoryUse(100, 100 + 10 * self.last)

    def tried(self, memory_limit: float = 1e9) -> dict[int, float]:
        return try_batch_sizes(
            self.run, count(32, 8), memory_limit, 0, clock=lambda: self.now, measure_memory=self.memory
        )


def test_whole_batches_run_for_at_least_the_given_time():
    machine = Machine()
    assert examples_per_second(machine.model("a", 2.0), 6, 5.0, machine.clock) == 3
    assert machine.ran == ["a"] * 3


def test_one_batch_runs_however_short_the_time():
    machine = Machine()
    assert examples_per_second(machine.model("a", 2.0), 6, 0, machine.clock) == 3
    assert machine.ran == ["a"]


@pytest.mark.parametrize(
    ("rates", "tried"),
    [
        ((5, 4, 3, 9), [32, 40, 48]),
        ((5, 6, 5, 7, 6, 5, 9), [32, 40, 48, 56, 64, 72]),  # a single fall does not end it
        ((4, 2, 2, 1, 0.5, 9), [32, 40, 48, 56, 64]),  # nor does standing still
    ],
)
def test_batches_grow_by_eight_until_throughput_falls_twice_in_a_row(rates, tried):
    found = Ramp(*rates).tried()
    assert list(found) == tried
    assert list(found.values()) == pytest.approx(rates[: len(tried)])


@pytest.mark.parametrize(("limit", "tried"), [(580, [32, 40, 48]), (579, [32, 40]), (420, [32])])
def test_batches_grow_while_the_predicted_memory_is_within_the_limit(limit, tried):
    assert list(Ramp(1, 2, 3, 4, 5).tried(memory_limit=limit)) == tried


def test_a_first_batch_that_would_not_fit_raises():
    with pytest.raises(MemoryError, match=r"batch of 32 .* --max-memory, or give --batch-size"):
        Ramp(1).tried(memory_limit=419)


def test_models_alternate_after_a_warm_up_until_each_has_run_long_enough():
    machine = Machine()
    runs = {"slow": machine.model("slow", 4.0), "fast": machine.model("fast", 1.0)}
    rates = alternate(runs, {"slow": 8, "fast": 8}, seconds=5.0, window=2.0, clock=machine.clock)
    assert machine.ran == ["slow", "fast", *["slow", "fast", "fast"] * 3]
    assert rates == {"slow": [2.0] * 3, "fast": [8.0] * 3}


def test_ratios_are_of_the_same_round():
    machine = Machine()
    # the machine is half as fast in the second round, for both; the fast model has a slow moment in the third
    runs = {"full": machine.model("full", 9, 4, 8, 4), "reduced": machine.model("reduced", 9, 2, 4, 4)}
    rates = alternate(runs, {"full": 4, "reduced": 4}, seconds=10.0, window=0, clock=machine.clock)
    assert rates == {"full": [1.0, 0.5, 1.0], "reduced": [2.0, 1.0, 1.0]}
    assert speed_up(rates["reduced"], rates["full"]) == Spread(median=2.0, low=1.0, high=2.0)
