"""Multiply-accumulates and bytes of a prefill, counted while it runs, beside what formulas say of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lmms_tokendrop.bench.runners import ReducedRunner, StockRunner
from lmms_tokendrop.bench.watching import flops_of_layers
from lmms_tokendrop.evaluation.accounting import decoder_macs, kv_bytes
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


@dataclass(frozen=True)
class Costs:
    """What a prefill costs, after formulas and measurement agreed.

    Attributes
    ----------
    visual_tokens : float
        Mean over layers of those that a layer receives, per row.
    macs : int
        Multiply-accumulates of the decoder's layers for all rows, attention in full, without scoring.
    causal_macs : float
        The same with attention at half.
    kv_bytes : int
        Of all keys and values.
    weight_bytes : int
        Of the decoder and the head, embeddings left out: what a decoding step reads beside the cache.
    """

    visual_tokens: float
    macs: int
    causal_macs: float
    kv_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class Lengths:
    """Tokens of each layer, text and padding included: what its attention and its MLP process, and its cache holds."""

    attention: list[int]
    mlp: list[int]
    cached: list[int]


def costs(runner: StockRunner) -> Costs:
    """Count one prefill and check it.

    Raises
    ------
    RuntimeError
        If a count differs from its formula.
    """
    macs, cache = _counted(runner)
    prompt, config = runner.prompt, runner.decoder.config
    rows, layers = len(prompt.input_ids), config.num_hidden_layers
    visual = [prompt.visual_tokens] * layers
    lengths = Lengths(*([prompt.input_ids.shape[1]] * layers for _ in range(3)))
    if isinstance(runner, ReducedRunner):
        report = cache.report()
        visual = [sum(counts) / rows for counts in report.visual_tokens_per_layer]
        lengths = lengths_of(runner, cache)
    stated = {causal: rows * prefill_macs(config, lengths, causal) for causal in (False, True)}
    stated_bytes = rows * kv_bytes(config, lengths.cached, cache.layers[0].keys.dtype)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    quantised = getattr(runner.model, "is_quantized", False)  # its kernels are none that the counter knows
    for name, found, formula in (("MACs", macs, stated[False]), ("KV bytes", held, stated_bytes)):
        if found != formula and not (quantised and name == "MACs"):
            raise RuntimeError(f"{runner.name}: {found} {name} were counted, and the formula gives {formula:.0f}")
    return Costs(sum(visual) / layers, int(stated[False]), stated[True], held, weight_bytes(runner))


def prefill_macs(config: Any, lengths: Lengths, causal: bool) -> float:
    """MACs of all layers, where the MLP of a layer may run on fewer tokens than its attention."""
    left = (before - after for before, after in zip(lengths.attention, lengths.mlp, strict=True))
    return decoder_macs(config, lengths.attention, causal) - 3 * config.hidden_size * config.intermediate_size * sum(
        left
    )


def weight_bytes(runner: StockRunner) -> int:
    """Bytes of the layers, the norm behind them, and the head."""
    modules = (runner.decoder.layers, runner.decoder.norm, runner.head)
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())


def _counted(runner: StockRunner) -> tuple[int, Any]:
    """MACs of the layers, and the cache."""
    runner.embeddings  # noqa: B018, is made once, and not counted
    with flops_of_layers(type(runner.decoder.rotary_emb)) as flops, without_flash(runner.model):
        cache = cache_of(runner.run_decoder())
    return flops() // 2, cache


@contextmanager
def without_flash(model: Any) -> Iterator[None]:
    """Run with sdpa for a while: kernels of flash attention are none that the counter knows, and compute as much."""
    chosen = model.config._attn_implementation
    if not chosen.startswith("flash"):
        yield
        return
    model.set_attn_implementation("sdpa")
    yield
    model.set_attn_implementation(chosen)


def lengths_of(runner: ReducedRunner, cache: Any) -> Lengths:
    """From what the prefill says of itself: the longest row of each layer."""
    text = runner.prompt.input_ids.shape[1] - runner.prompt.visual_tokens
    received, released = (
        [text + int(counts.max()) for counts in layers] for layers in (cache.received[:-1], cache.received[1:])
    )
    inside = {stage.layer for stage in runner.reducer.stages_at("decoder") if stage.point == "before_ffn"}
    compacted = {stage.layer for stage in runner.reducer.stages_at("decode") if stage.point == "after_prefill"}
    layers = range(len(received))
    return Lengths(
        attention=received,
        mlp=[(released if number in inside else received)[number] for number in layers],
        cached=[released[-1] if number in compacted else received[number] for number in layers],
    )


def vision_macs(runner: StockRunner) -> int:
    """MACs of the tower and the projector, as counted, without what stages compute."""
    with flops_of_layers() as flops, without_flash(runner.model):
        runner.vision()
    return flops() // 2
