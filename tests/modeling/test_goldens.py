"""What every variant keeps and answers on tiny models is what `scripts/write_goldens.py` wrote."""

from __future__ import annotations

import pytest
import torch
from comparison_cases import golden_jobs
from golden_data import GOLDEN, computed, read_golden, write_golden
from keyed_weights import keyed_values

from lmms_tokendrop.catalogue import variants

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of the checkpoints and inputs."""
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("entry", variants(), ids=lambda entry: entry.model_id)
def test_a_variant_keeps_and_answers_what_it_did(entry, files):
    golden, jobs = read_golden(entry.model_id), golden_jobs(entry.architecture, entry.method)
    assert list(golden) == [job.options for job in jobs]
    for job in jobs:
        expected, found = golden[job.options], computed(job, files)
        assert found["kept"] == expected["kept"], job.options
        assert found["answer"] == expected["answer"], job.options
        torch.testing.assert_close(found["logits"], expected["logits"], rtol=0, atol=TOLERANCE, msg=job.options)


def test_golden_data_are_of_variants_that_there_are():
    assert {path.stem for path in GOLDEN.iterdir()} == {entry.model_id for entry in variants()}


def test_a_variant_without_golden_data_names_the_command():
    with pytest.raises(ValueError, match=r"no golden data; write them with: .*write_goldens.py llava_next_other"):
        read_golden("llava_next_other")


def test_what_is_written_is_what_is_read(files, tmp_path, monkeypatch):
    stored = read_golden("vilt_tome")
    monkeypatch.setattr("golden_data.GOLDEN", tmp_path)
    write_golden("vilt_tome", "vilt", "tome", files)
    written = read_golden("vilt_tome")
    assert {options: golden["kept"] for options, golden in written.items()} == {
        options: golden["kept"] for options, golden in stored.items()
    }
    for options, golden in written.items():
        torch.testing.assert_close(golden["logits"], stored[options]["logits"], rtol=0, atol=TOLERANCE)


def test_weights_depend_on_their_names_alone():
    first = keyed_values("encoder.weight", torch.Size([3, 4]))
    keyed_values("another.weight", torch.Size([8]))
    assert torch.equal(first, keyed_values("encoder.weight", torch.Size([3, 4])))
    assert not torch.equal(first, keyed_values("decoder.weight", torch.Size([3, 4])))
