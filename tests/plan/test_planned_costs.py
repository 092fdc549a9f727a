"""Counts of narrow models are those of the rules, and costs of public sizes those worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from budget_goldens import GOLDENS

from lmms_tokendrop.plan.narrow_model import Counts
from lmms_tokendrop.plan.planned_costs import BUDGETS, contenders, costs, counts
from lmms_tokendrop.plan.targets import read_target

PLANNED = Path(__file__).resolve().parents[2] / "model_cards" / "results" / "planned_costs.json"
NEXT = {32: read_target("llava-v1.6-vicuna-7b"), 40: read_target("llava-v1.6-vicuna-13b")}


@pytest.mark.parametrize(
    ("name", "tokens", "tera_macs", "megabytes"),
    [
        ("llava-1.5-7b", 576, 3.82, 302.0),
        ("llava-1.5-7b", 192, 1.25, 100.7),
        ("llava-1.5-7b", 64, 0.42, 33.6),
        ("llava-v1.6-vicuna-7b", 2880, 20.83, 1509.9),
        ("llava-v1.6-vicuna-7b", 640, 4.25, 335.5),
        ("llava-v1.6-vicuna-7b", 320, 2.10, 167.8),
        ("llava-v1.6-vicuna-7b", 160, 1.04, 83.9),
        # 40 layers of 4nd^2 + 2n^2d + 3ndm with d = 5120, m = 13824; 2 x 40 x 5120 x 2 bytes a token
        ("llava-1.5-13b", 576, 7.44, 471.9),
        ("llava-v1.6-vicuna-13b", 320, 4.10, 262.1),
    ],
)
def test_costs_of_equal_layers_by_hand(name, tokens, tera_macs, megabytes):
    target = read_target(name)
    found = costs(target, Counts.constant(tokens, target.config().text_config.num_hidden_layers))
    assert round(found["macs"] / 1e12, 2) == tera_macs
    assert round(found["kv_bytes"] / 1e6, 1) == megabytes
    assert found["input"] == found["release"] == tokens


def test_unreduced_models_receive_all_patches_and_newlines():
    for target, layers, tokens in ((read_target("llava-1.5-13b"), 40, 576), (NEXT[32], 32, 2928)):
        found = counts(target, {"method": "none"})
        assert found.received == found.cached == (tokens,) * layers


def test_fastv_keeps_the_cache_of_its_first_layers():
    """Two of 32 layers receive 576; (64 * 32 - 2 * 576) / 30 are left to each of the others."""
    found = counts(read_target("llava-1.5-7b"), {"method": "fastv", "visual_tokens": 64})
    assert found.received == found.cached == (576,) * 2 + (30,) * 30


@pytest.mark.parametrize(
    "golden",
    [golden for golden in GOLDENS if not golden.forced and not golden.similar and golden.tokens == 640],
    ids=str,
)
def test_mustdrops_drops_and_cache_are_the_rules(golden):
    found = counts(NEXT[golden.layers], {"method": "mustdrop", **golden.reduction})
    left = (golden.after_merging, *golden.stages)
    assert tuple(dict.fromkeys(found.received)) == tuple(dict.fromkeys(left))
    assert found.cached == (golden.after_merging,) * 2 + (golden.stages[-1],) * (golden.layers - 2)
    average = sum(found.received) / golden.layers if golden.counter == "input" else found.released
    assert average == pytest.approx(640, abs=1)


@pytest.mark.parametrize("label", ["mustdrop", "sparsevlm", "visionzip", "visionzip, then mustdrop"])
def test_the_results_file_has_what_is_planned(label):
    """To a window of MustDrop: which windows are most similar is the noise's, and other processors round otherwise."""
    target = read_target("llava-1.5-7b")
    rows = json.loads(PLANNED.read_text())[target.name]["rows"]
    [row] = [row for row in rows if (row["method"], row["budget"], row["counter"]) == (label, 64, "input")]
    found = counts(target, {**contenders(target)[label], "visual_tokens": 64, "counter": "input"})
    assert costs(target, found) == pytest.approx(row["costs"], rel=0.03)


def test_every_method_with_a_budget_has_rows():
    planned = json.loads(PLANNED.read_text())
    for name, budgets in BUDGETS.items():
        found = {(row["method"], row["budget"]) for row in planned[name]["rows"]}
        wanted = {(label, budget) for label in contenders(read_target(name)) for budget in budgets}
        assert found == wanted, "planned_costs.json is stale; write it anew with: python scripts/plan_real_models.py"
