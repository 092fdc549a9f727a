"""Measurements of encoders' variants, end to end on tiny encoders."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_meter import tiny_meter_config
from tiny_vilt import tiny_vilt_config
from typer.testing import CliRunner

from lmms_tokendrop.bench import throughput
from lmms_tokendrop.bench.encoder_variants import ENCODERS, FULL, HEADLINE, METER, STOCK, VILT
from lmms_tokendrop.bench.peak_memory import MemoryUse
from lmms_tokendrop.bench.throughput import (
    Settings,
    forward_memory,
    measure_memory,
    measure_throughput,
    sharing_weights,
)
from lmms_tokendrop.bench.training_step import measure_training_step
from lmms_tokendrop.benchmark.report import TABLES
from lmms_tokendrop.cli import app
from lmms_tokendrop.markdown import NOT_MEASURED

SIZES = {
    "vilt": ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "image_size", "patch_size"),
    "meter": (
        "text_config",
        "vision_config",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
    ),
}


def shrunk(architecture, config, sizes):
    """The same with tiny widths and images, and blocks enough for the published settings."""
    options = {name: value for name, value in config.to_dict().items() if name in sizes}
    variants = [
        replace(variant, token_reduction=variant.token_reduction | {"image_size": 24})
        if "image_size" in (variant.token_reduction or {})
        else variant
        for variant in architecture.variants
    ]
    return replace(architecture, first_batch=2, variants=tuple(variants), options=options | {"num_labels": 5})


TINY = {
    "vilt": shrunk(VILT, tiny_vilt_config(), SIZES["vilt"]),
    "meter": shrunk(METER, tiny_meter_config(), SIZES["meter"]),
}
QUICK = Settings(seconds=0, window=0)


def ignore(text: str) -> None:
    """Say nothing."""


@pytest.fixture(params=list(TINY))
def tiny(request):
    return TINY[request.param]


def run(*options: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["bench", *options])


def test_every_architecture_has_the_baselines_and_the_headline():
    for architecture in ENCODERS.values():
        names = [variant.name for variant in architecture.variants]
        assert len(set(names)) == len(names)
        assert {STOCK, FULL, *HEADLINE} <= set(names)


def test_an_unknown_variant_is_named_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"'nonsense' is unknown; allowed: stock, full, pumer-vqav2"):
        VILT.variant("nonsense")


@pytest.mark.parametrize(("architecture", "full", "pumer"), [(VILT, 15.95, 8.70), (METER, 91.89, 64.6)])
def test_macs_of_the_published_sizes(architecture, full, pumer):
    macs = {name: architecture.variant_macs(architecture.variant(name)) / 1e9 for name in HEADLINE}
    assert macs == pytest.approx({STOCK: full, FULL: full, "pumer-vqav2": pumer}, rel=0.01)


def test_variants_share_their_weights_and_give_the_stock_answers_where_nothing_is_reduced(tiny):
    models = sharing_weights(tiny, tiny.variants, torch.float32)
    first = models[STOCK].classifier[0].weight
    assert all(model.classifier[0].weight.data_ptr() == first.data_ptr() for model in models.values())
    inputs = tiny.inputs(2)
    with torch.inference_mode():
        answers = {name: model(**inputs).logits for name, model in models.items()}
    assert torch.allclose(answers[FULL], answers[STOCK], atol=1e-5)
    for name, answer in answers.items():
        assert name in (STOCK, FULL) or not torch.allclose(answer, answers[FULL], atol=1e-5)


def test_throughput_of_all_variants_at_one_batch_size(tiny):
    rows = measure_throughput(tiny, tiny.variants, QUICK, batch_size=2, say=ignore)
    assert [row["name"] for row in rows] == [variant.name for variant in tiny.variants]
    for row in rows:
        assert row["batch_size"] == 2
        assert row["tried"] == {}
        assert row["examples_per_second"]["low"] > 0
        assert row["quotient"] == pytest.approx(row["speed_up_over_full"]["median"] / row["macs_speed_up"])
    assert rows[0]["speed_up_over_stock"] == {"median": 1, "low": 1, "high": 1}


def test_the_batch_size_is_the_best_of_those_tried(tiny, monkeypatch):
    rates = {2: 5.0, 10: 7.0, 18: 6.0}
    monkeypatch.setattr(throughput, "try_batch_sizes", lambda run, *limits, **how: rates)
    (row,) = measure_throughput(tiny, [tiny.variant(FULL)], QUICK, say=ignore)
    assert (row["batch_size"], row["tried"]) == (10, rates)
    assert "speed_up_over_stock" not in row


def test_memory_of_each_mode_beside_the_unreduced_model(tiny, monkeypatch):
    used = {
        ("inference", FULL): MemoryUse(before=100, peak=200),
        ("inference", "pumer-vqav2"): MemoryUse(before=110, peak=190),
        ("grad", FULL): MemoryUse(before=100, peak=500),
        ("grad", "pumer-vqav2"): MemoryUse(before=100, peak=300),
    }

    def in_fresh_process(function, architecture, variant, settings, batch_size, mode):
        assert (function, architecture, settings, batch_size) == (forward_memory, tiny, QUICK, 8)
        return used[mode, variant.name]

    monkeypatch.setattr(throughput, "in_fresh_process", in_fresh_process)
    rows = measure_memory(tiny, [tiny.variant(name) for name in (FULL, "pumer-vqav2")], QUICK, 8, ignore)
    assert [(row["mode"], row["name"]) for row in rows] == list(used)
    assert [(row["before"], row["peak"]) for row in rows] == [(use.before, use.peak) for use in used.values()]
    assert [row["change_of_peak"] for row in rows] == pytest.approx([0, -0.05, 0, -0.4])
    assert [row["change_of_added"] for row in rows] == pytest.approx([0, -0.2, 0, -0.5])


def bytes_for_backward(tiny, name: str, batch_size: int = 8) -> int:
    """Bytes of the tensors that a forward pass keeps for a backward pass, each storage once."""
    model, sizes = tiny.build(tiny.variant(name), torch.float32), {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(**tiny.inputs(batch_size))
    assert output.logits.requires_grad
    return sum(sizes.values())


def test_fewer_tokens_leave_less_for_a_backward_pass(tiny):
    assert bytes_for_backward(tiny, "pumer-vqav2") < 0.9 * bytes_for_backward(tiny, FULL)


def test_a_forward_pass_with_gradients_takes_what_backward_needs():
    arguments = (TINY["vilt"], TINY["vilt"].variant(FULL), QUICK, 64, "grad")
    use = throughput.in_fresh_process(forward_memory, *arguments)
    assert use.added >= bytes_for_backward(TINY["vilt"], FULL, 64)


def test_training_steps_beside_the_unreduced_model(tiny):
    chosen = [tiny.variant(name) for name in (FULL, "pumer-vqav2")]
    full, pumer = measure_training_step(tiny, chosen, torch.float32, 2, 1, ignore)
    assert full["speed_up"] == full["speed_up_with_teacher"] == {"median": 1, "low": 1, "high": 1}
    ratio = (full["step_seconds"]["median"] + full["teacher_seconds"]["median"]) / (
        pumer["step_seconds"]["median"] + pumer["teacher_seconds"]["median"]
    )
    assert (pumer["name"], pumer["steps"]) == ("pumer-vqav2", 1)
    assert pumer["speed_up_with_teacher"]["median"] == pytest.approx(ratio)


def test_the_command_writes_what_the_tables_show(tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "vilt", TINY["vilt"])
    output = tmp_path / "throughput_vilt.json"
    options = ("--seconds", "0", "--window", "0", "--max-batch-size", "10", "--parts", "throughput,training")
    chosen = (
        "--methods",
        "full,pumer-vqav2",
        "--memory-batch-size",
        "1",
        "--training-steps",
        "1",
        "--dtype",
        "bfloat16",
    )
    result = run("--shape", "vilt", "--output", str(output), *options, *chosen)
    assert result.exit_code == 0, result.output
    assert "Training step" in result.output
    measured = json.loads(output.read_text())
    assert measured["dtype"] == "bfloat16"
    assert list(measured["throughput"][0]["tried"]) == ["2", "10"]
    table = TABLES["throughput-vilt"](tmp_path)
    assert "| `pumer-vqav2` | 1 |" in table
    assert f"| {NOT_MEASURED} |" in table  # there was no stock model
    assert f"Peak memory: {NOT_MEASURED}" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "full,nonsense"], "variant 'nonsense' is unknown; allowed: stock, full, "),
        (["--dtype", "4bit"], "dtype='4bit'; allowed for vilt: float32, bfloat16, float16"),
        (["--device", "nonsense"], "device='nonsense'; this machine has cpu"),
        (["--parts", "prefill"], "parts=prefill; allowed: throughput, memory, training"),
        (["--batch-size", "0"], "batch_size=0; allowed: a whole number from 1"),
        (["--max-batch-size", "31"], "max_batch_size=31; allowed: 32, the first that is tried, or more"),
        (["--max-memory", "60"], "max_memory=60.0; allowed: a number from 0 to 1"),
        (["--seconds", "inf"], "seconds=inf; allowed: a number from 0"),
        (["--images", "336x336"], "images: not with shape='vilt', an encoder"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(options, message):
    result = run("--shape", "vilt", *options)
    assert result.exit_code == 1
    assert f"Error: {message}" in result.output
