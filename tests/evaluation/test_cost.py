"""Means over the samples that count."""

from types import SimpleNamespace

import pytest
import torch
from lmms_eval.models.model_utils import gen_metrics

from lmms_tokendrop.evaluation.cost import CostLedger, SampleCost
from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop


@pytest.fixture(autouse=True)
def empty_history():
    gen_metrics.reset_logged_metrics()
    yield
    gen_metrics.reset_logged_metrics()


def test_means_are_weighted_by_samples_and_logged_once():
    ledger = CostLedger()
    for tokens in (10.0, 20.0, 60.0):
        layers = [tokens + 1, tokens - 1]
        ledger.add(SampleCost(visual_tokens=tokens, kv_bytes=2 * tokens, output_tokens=2, seconds=0.5, layers=layers))
    ledger.log(torch.device("cpu"), first_process=True)
    ledger.log(torch.device("cpu"), first_process=True)
    assert len(gen_metrics.get_logged_metrics_history()) == 1
    summary = gen_metrics.summarize_logged_metrics()
    assert summary["avg_visual_tokens"] == 30
    assert ledger.layers == [31, 29]
    assert summary["avg_n"] == 3
    assert summary["avg_kv_bytes"] == 60
    assert summary["total_gen_tokens"] == 6
    assert summary["avg_speed"] == 4
    assert summary["avg_latency"] == summary["avg_seconds"] == 0.5


def test_only_the_first_process_logs():
    ledger = CostLedger()
    ledger.add(SampleCost(seconds=1))
    ledger.log(torch.device("cpu"), first_process=False)
    assert gen_metrics.get_logged_metrics_history() == []


def test_padding_duplicates_do_not_count():
    adapter = SimpleNamespace(ledger=CostLedger())
    real, padding = SimpleNamespace(metadata={}), SimpleNamespace(metadata={"__padding_only__": True})
    for requests in ([real], [padding], [real, padding]):
        GenerativeTokenDrop._count(adapter, SampleCost(visual_tokens=1), requests)
    samples, total = adapter.ledger.gathered(torch.device("cpu"))
    assert (samples, total.visual_tokens) == (2, 2)


def test_input_tokens_are_counted_after_the_reduction():
    assert SampleCost(prompt_tokens=100, full_visual_tokens=80, visual_tokens=20.4).input_tokens == 40
