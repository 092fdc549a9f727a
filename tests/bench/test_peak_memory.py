"""Peaks of resident memory."""

import torch

from lmms_tokendrop.bench.peak_memory import MemoryUse, in_fresh_process, memory_use

MEGABYTES = 2**20


def fill(megabytes: int) -> None:
    torch.ones(megabytes * MEGABYTES, dtype=torch.uint8)


def test_a_peak_is_seen_after_its_memory_is_free_again_and_forgotten_by_the_next_action():
    large, small = memory_use(lambda: fill(256)), memory_use(lambda: fill(1))
    assert 255 * MEGABYTES <= large.added < 288 * MEGABYTES
    assert small.added < 32 * MEGABYTES


def test_added_is_the_peak_without_what_was_there():
    assert MemoryUse(before=100, peak=130).added == 30


def test_a_fresh_process_has_none_of_this_ones_memory():
    ballast = torch.ones(256 * MEGABYTES, dtype=torch.uint8)
    use = in_fresh_process(memory_use, str)
    assert use.peak < ballast.nbytes
