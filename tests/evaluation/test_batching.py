import pytest
import torch

from lmms_tokendrop.evaluation.batching import CPU_BATCH_SIZE, LARGEST_BATCH_SIZE, Batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_sizes():
    assert Batches("3", CPU).size == 3
    assert Batches("auto", CPU).size == CPU_BATCH_SIZE == 8
    assert Batches("auto", CUDA).size == LARGEST_BATCH_SIZE
    assert Batches("auto", CUDA, largest=5).size == 5


@pytest.mark.parametrize("size", [0, "-1", "many", "2.5"])
def test_other_sizes_raise(size):
    with pytest.raises(ValueError, match="batch_size must be a positive integer or 'auto'"):
        Batches(size, CPU)


@pytest.mark.parametrize("largest", [0, -1, "many"])
def test_auto_starts_from_a_positive_size(largest):
    with pytest.raises(ValueError, match="max_batch_size must be a positive integer"):
        Batches("auto", CUDA, largest=largest)


def test_auto_halves_until_it_fits_and_loses_nothing():
    tried = []

    def double(batch):
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("too much")
        return [2 * item for item in batch]

    batches = Batches("auto", CUDA, largest=16)
    assert list(batches.run(range(7), double)) == [(item, 2 * item) for item in range(7)]
    assert tried == [7, 3, 3, 1]


def test_a_fixed_size_lets_the_error_through():
    def fail(batch):
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError):
        list(Batches(4, CUDA).run(range(7), fail))
    with pytest.raises(torch.OutOfMemoryError):
        list(Batches("auto", CUDA).run(range(7), fail))
