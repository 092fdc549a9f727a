"""Measurements of decoders: models with the same weights, part by part, counted and compared with formulas."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from lmms_tokendrop.bench import batches, costs, measuring
from lmms_tokendrop.bench.batches import Limits, measure_batches, measure_memory, memory_of
from lmms_tokendrop.bench.layers_alone import LayersAlone
from lmms_tokendrop.bench.measuring import PARTS, measure, runners_of
from lmms_tokendrop.bench.models import build
from lmms_tokendrop.bench.peak_memory import MemoryUse
from lmms_tokendrop.bench.published import PublishedRunner, mask
from lmms_tokendrop.bench.runners import STOCK, twin
from lmms_tokendrop.bench.setting import Setting, reductions_for
from lmms_tokendrop.bench.watching import flops_of_layers, seconds_of_parts
from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.accounting import decoder_macs, kv_bytes
from lmms_tokendrop.modeling.core.budget import Budget
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

IMAGE, VISUAL, TEXT = "336x336", 1176, 60
TINY = Setting(shape="4x64", tower="3x64", images=(IMAGE,), budget="25%", new_tokens=3, repeats=1)
ONE_TILE = replace(TINY, architecture="llava", budget="60%")
METHODS = {"inside": "mustdrop:layers=1+2", "before": "visionzip", "behind": "sparsevlm:layers=0+1", "none": "none"}


def silent(name: str, done: int, total: int) -> None:
    """Say nothing."""


def runners(setting: Setting, *methods: str):
    return runners_of(setting, build(setting, reductions_for(setting, methods)), IMAGE)


@pytest.fixture(scope="module")
def results():
    reductions = reductions_for(TINY, [METHODS["inside"]])
    return measure(TINY, reductions, PARTS, published=True)


@torch.inference_mode()
def test_without_reduction_every_part_gives_what_the_stock_model_gives():
    one = runners(TINY, "none")
    stock, reduced = one[STOCK], one["none"]
    assert reduced.model.lm_head.weight.data_ptr() == stock.model.lm_head.weight.data_ptr()
    assert torch.allclose(reduced.embeddings, stock.embeddings, atol=1e-5)
    assert torch.allclose(reduced.prefill()[0], stock.prefill()[0], atol=1e-5)
    assert torch.equal(reduced.decode(), stock.decode())
    assert torch.equal(reduced.whole(), stock.whole())


@torch.inference_mode()
@pytest.mark.parametrize("method", [METHODS["inside"], METHODS["before"]])
def test_decoding_part_by_part_is_generate_and_can_be_repeated(method):
    runner = runners(TINY, method)[method]
    first, again = runner.decode(), runner.decode()
    assert torch.equal(first, again)
    answer = runner.whole()[:, runner.prompt.input_ids.shape[1] :]
    assert torch.equal(torch.cat([runner.prefill()[0].argmax(-1), first], dim=1)[:, :3], answer)


@torch.inference_mode()
@pytest.mark.parametrize("setting", [TINY, ONE_TILE, replace(TINY, attention="eager", batch_size=2)])
@pytest.mark.parametrize("kind", ["inside", "before"])
def test_counts_are_those_of_the_formulas(setting, kind):
    one = runners(setting, METHODS[kind])
    stock, reduced = (costs.costs(runner) for runner in one.values())
    config, rows, visual = one[STOCK].decoder.config, setting.batch_size, one[STOCK].prompt.visual_tokens
    lengths = [visual + TEXT] * 4
    assert stock.macs == rows * decoder_macs(config, lengths, causal=False)
    assert stock.kv_bytes == rows * kv_bytes(config, lengths, torch.float32)
    share = visual / 576 * 576 * setting.budget_option()["keep_ratio"]
    assert reduced.visual_tokens == pytest.approx(share if visual == 576 else share - 6, abs=1)
    assert reduced.macs < stock.macs


@torch.inference_mode()
def test_a_count_that_differs_from_its_formula_is_an_error(monkeypatch):
    stock = runners(TINY, "none")[STOCK]
    monkeypatch.setattr(costs, "kv_bytes", lambda *size: kv_bytes(*size) + 1)
    with pytest.raises(RuntimeError, match=r"stock: \d+ KV bytes were counted, and the formula gives \d+"):
        costs.costs(stock)
    monkeypatch.undo()
    monkeypatch.setattr(costs, "decoder_macs", lambda *size: decoder_macs(*size) + 1)
    with pytest.raises(RuntimeError, match=r"stock: \d+ MACs were counted, and the formula gives \d+"):
        costs.costs(stock)


@torch.inference_mode()
def test_the_published_baseline_computes_what_mustdrop_does_with_positions_counted_anew():
    method = f"{METHODS['inside']}:position_mode=compact"
    reduced = runners(TINY, method)[method]
    published = PublishedRunner(reduced)
    assert torch.allclose(published.prefill()[0], reduced.prefill()[0], atol=1e-5)
    kept = cache_of(reduced.run_decoder()).report().kv_lengths
    assert [keys.shape[2] for keys in published.prefilled[1].keys] == kept
    assert published.decode().shape == (1, TINY.new_tokens)
    assert [keys.shape[2] for keys in published.prefilled[1].keys] == kept


@torch.inference_mode()
@pytest.mark.parametrize("setting", [TINY, replace(TINY, attention="eager", batch_size=2)])
@pytest.mark.parametrize("kind", ["inside", "before"])
def test_layers_alone_compute_and_hold_as_much_as_the_reduced_model(setting, kind):
    reduced = runners(setting, METHODS[kind])[METHODS[kind]]
    alone = LayersAlone(reduced)
    with flops_of_layers(type(alone.decoder.rotary_emb)) as flops:
        _, cache = alone.prefill()
    head = setting.batch_size * alone.head.weight.numel()
    assert flops() // 2 - head == costs.costs(reduced).macs
    held = [layer.keys.shape for layer in cache.layers]
    assert held == [layer.values.shape for layer in cache.layers]
    assert held == [layer.keys.shape for layer in reduced.prefilled[1].layers]
    assert alone.decode().shape == (setting.batch_size, setting.new_tokens)


@torch.inference_mode()
def test_layers_alone_are_the_stock_model_where_nothing_leaves():
    one = runners(TINY, "none")
    alone = LayersAlone(one["none"])
    assert torch.allclose(alone.prefill()[0], one[STOCK].prefill()[0], atol=1e-5)
    logits = [runner.step(torch.tensor([[7]]), twin(runner.prefilled[1]))[0] for runner in (alone, one[STOCK])]
    assert torch.allclose(*logits, atol=1e-5)


def test_the_published_baseline_masks_later_keys():
    query, key = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 3, 4)
    hidden = float("-inf")
    assert mask(query, key).tolist() == [[0, 0, hidden], [0, 0, 0]]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("inside", {"rows", "decoder", "before", "tower"}),
        ("behind", {"rows", "decoder", "before"}),
        ("before", {"decoder", "before", "tower"}),
        ("none", {"decoder"}),
    ],
)
def test_what_stages_do_is_told_apart_by_where_they_are(kind, parts):
    setting = replace(TINY, budget="60%")
    runner = runners(setting, METHODS[kind])[METHODS[kind]]
    ticks = iter(range(1000))
    with seconds_of_parts(lambda: next(ticks)) as spent:
        runner.vision()
        cache = runner.prefill()[1]
    assert set(spent) == parts
    drops = len(runner.reducer.stages_at("decoder"))
    assert spent["rows"] == drops  # a tick each
    assert spent["decoder"] == 1 + 3 * drops  # with the ticks of the rows inside
    assert len(cache.records) == drops + (kind != "none")


@torch.inference_mode()
def test_a_budget_is_worked_out_once_for_each_stage(monkeypatch):
    runner = runners(TINY, METHODS["inside"])[METHODS["inside"]]
    runner.embeddings  # noqa: B018, the tower has a budget of its own
    asked, found = [], Budget.next_count

    def next_count(budget, *known):
        asked.append(len(known[1]))
        return found(budget, *known)

    monkeypatch.setattr(Budget, "next_count", next_count)
    runner.prefill()
    assert asked == [2, 3]  # layers so far


def test_each_part_has_a_row_per_model_with_what_is_allowed(results):
    names = [STOCK, METHODS["inside"], f"layers of {METHODS['inside']}", f"published {METHODS['inside']}"]
    found = {(row["part"], row["name"]): row for row in results["rows"]}
    expected = [(part, name) for part in measuring.TIMED for name in names]
    without_baselines = [(part, name) for part in ("vision", "whole") for name in names[2:]]
    assert list(found) == [pair for pair in expected if pair not in without_baselines]
    stock, reduced = results["costs"]
    row = found["prefill", names[1]]
    assert row["allowed"] == stock["causal_macs"] / reduced["causal_macs"]
    assert row["quotient"] == row["speed_up"]["median"] / row["allowed"]
    row = found["decode", names[1]]
    assert row["allowed"] == pytest.approx(
        (stock["weight_bytes"] + stock["kv_bytes"]) / (reduced["weight_bytes"] + reduced["kv_bytes"])
    )
    assert row["allowed"] == found["decode", names[2]]["allowed"]
    published = found["decode", names[3]]["seconds"]
    assert row["over_published"]["median"] == pytest.approx(published["median"] / row["seconds"]["median"])
    assert found["vision", names[1]]["allowed"] > 1
    assert "allowed" not in found["whole", names[1]]
    assert results["stock_attention"] in ("eager", "sdpa")
    (shares,) = results["shares"]
    assert 0 < shares["rows"] < shares["selection"] < 1
    assert shares["before"] > 0


def test_requests_per_second_of_a_batch(monkeypatch):
    setting = replace(ONE_TILE, new_tokens=1)
    stock, reduced = measure_batches(
        setting, reductions_for(setting, ["random"]), Limits(0, 0, batch_size=2), "sdpa", silent
    )
    assert (stock["name"], reduced["name"], reduced["batch_size"]) == (STOCK, "random", 2)
    assert stock["speed_up"] == {"median": 1, "low": 1, "high": 1}
    assert reduced["requests_per_second"]["low"] > 0
    rates = {16: 1.0, 24: 3.0, 32: 2.0}
    monkeypatch.setattr(batches, "try_batch_sizes", lambda run, sizes, *limits, **how: dict.fromkeys(sizes, 1.0))
    monkeypatch.setattr(batches, "alternate", lambda runs, sizes, *times: {name: [1.0] for name in runs})
    rows = measure_batches(setting, reductions_for(setting, ["random"]), Limits(max_batch_size=32), "sdpa", silent)
    assert list(rows[0]["tried"]) == list(rates)


def test_memory_of_generation_beside_the_stock_model(monkeypatch):
    setting = replace(ONE_TILE, new_tokens=1, batch_size=2)
    reductions = reductions_for(setting, ["random"])
    used = {STOCK: MemoryUse(before=100, peak=200), "random": MemoryUse(before=110, peak=190)}

    def in_fresh_process(function, *arguments):
        assert (function, arguments) == (memory_of, (setting, reductions, arguments[2], IMAGE))
        return used[arguments[2]]

    monkeypatch.setattr(batches, "in_fresh_process", in_fresh_process)
    rows = measure_memory(setting, reductions, silent)
    assert [(row["name"], row["before"], row["peak"]) for row in rows] == [(STOCK, 100, 200), ("random", 110, 190)]
    assert [row["change_of_added"] for row in rows] == pytest.approx([0, -0.2])
    use = memory_of(setting, reductions, "random", IMAGE)
    assert 0 < use.before <= use.peak


@pytest.mark.slow
@torch.inference_mode()
def test_a_quantised_model_is_timed_and_its_cache_is_counted():
    setting = replace(ONE_TILE, shape="1x1024", dtype="4bit")
    stock, reduced = (costs.costs(runner) for runner in runners(setting, "random").values())
    assert stock.kv_bytes == 2 * 1 * 1024 * 2 * (576 + TEXT)  # keys and values, layers, channels, bytes
    assert reduced.kv_bytes < stock.kv_bytes


def bench(*options: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["bench", *options])


def test_the_command_writes_what_it_compares(tmp_path, results):
    before, after = tmp_path / "before.json", tmp_path / "new" / "after.json"
    slower = [
        {**row, "seconds": {name: 3 * value for name, value in row["seconds"].items()}} for row in results["rows"]
    ]
    before.write_text(json.dumps({**results, "rows": slower, "commit": "abc"}))
    options = ("--shape", "4x64", "--tower", "3x64", "--images", IMAGE, "--methods", METHODS["inside"])
    done = bench(*options, "--budget", "25%", "--parts", "prefill", "--repeats", "1", "--output", str(after))
    assert done.exit_code == 0, done.output
    written = json.loads(after.read_text())
    assert [row["name"] for row in written["rows"]] == [STOCK, METHODS["inside"], f"layers of {METHODS['inside']}"]
    assert written["costs"] == results["costs"]
    before_itself = bench("--compare", str(before), str(before))
    assert " 1.000 " in before_itself.output
    shown = bench("--compare", str(before), str(after)).output
    assert "commit: abc / " in shown
    assert f"only in {before}: decode {IMAGE} stock (s)" in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "8x"], "shape='8x'; allowed: two whole numbers such as 8x1024"),
        (["--shape", "8x100"], "shape='8x100'; allowed: channels that are a multiple of 64"),
        (["--tower", "0x64"], "tower='0x64'; allowed: two whole numbers such as 8x1024"),
        (["--images", "672"], "images='672'; allowed: two whole numbers"),
        (["--architecture", "vilt"], "architecture='vilt'; allowed: llava_next, llava"),
        (
            ["--architecture", "llava", "--images", "672x672,336x336"],
            "images=672x672,336x336; allowed: one, which llava reads as one tile",
        ),
        (["--methods", "pumer"], "methods: 'pumer'; allowed for llava_next: none, mustdrop"),
        (["--methods", "mustdrop:text_ratio=calibrated"], "methods: 'mustdrop:text_ratio=calibrated'; allowed: values"),
        (["--methods", "fastv", "--images", IMAGE], "keep_ratio: an average of 128.00 visual tokens per image"),
        (["--budget", "2/1"], "budget='2/1'; allowed: a share such as 1/9 or 25%, or a number"),
        (["--counter", "output"], "counter='output'; allowed: input, release"),
        (["--parts", "prefill,training"], "parts=prefill,training; allowed: vision, prefill, decode, whole, shares"),
        (["--text-tokens", "1"], "text_tokens=1; allowed: a whole number from 2"),
        (["--dtype", "4bit"], "shape='8x64'; allowed with dtype='4bit': channels that are a multiple of 1024"),
        (["--dtype", "int8"], "dtype='int8'; allowed: float32, bfloat16, float16, 4bit"),
        (["--device", "tpu"], "device='tpu'; this machine has cpu"),
        (["--attention", "flash_attention_2"], "attention='flash_attention_2' does not run with device='cpu'"),
        (["--published", "--methods", "random"], "published: it runs beside mustdrop alone, one request at a time"),
        (["--pretrained", "pocket", "--tower", "3x64"], "tower: not with pretrained; a checkpoint has its sizes"),
        (["--training-steps", "3"], "training_steps: only with shape='vilt' or 'meter', encoders"),
        (["--threads", "0"], "threads=0; allowed: a whole number from 1"),
        (["--compare", "a", "b", "--shape", "vilt"], "shape: compare measures nothing; give it two files alone"),
        (["--compare", "a", "b"], "[Errno 2] No such file or directory: 'a'"),
    ],
)
def test_wrong_options_are_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = () if {"--shape", "--compare", "--pretrained"} & set(options) else ("--shape", "8x64")
    tower = () if {"--tower", "--compare"} & set(options) else ("--tower", "3x64")
    done = bench(*options, *sizes, *tower)
    assert done.exit_code == 1
    assert f"Error: {message}" in done.output


def test_files_without_a_common_figure_are_not_compared(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text('{"rows": [{"part": "prefill"}]}')
    assert "have no figure in common" in bench("--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")).output
    done = bench("--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert "b.json is not what bench writes (KeyError: 'seconds')" in done.output
