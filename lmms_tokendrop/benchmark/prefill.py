"""Prefill speed of a decoder that drops visual tokens, beside the stock decoder, in one run."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.utils.benchmark import Timer
from transformers import LlamaConfig, LlamaForCausalLM

from lmms_tokendrop.evaluation.accounting import decoder_macs
from lmms_tokendrop.modeling.core.decoder_inputs import ReductionRequest
from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.core.staged_decoder import StagedLlamaModel
from lmms_tokendrop.modeling.core.tile_layout import anyres_layout
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens
from lmms_tokendrop.modeling.methods.available import reductions

BASE_GRID, FINE_GRID = 24, 48
TEXT_TOKENS = 60


@dataclass(frozen=True)
class PrefillSpeed:
    """Median seconds of both decoders, and the speed-up beside what MACs allow.

    Attributes
    ----------
    stock_seconds, reduced_seconds
        Medians over alternating repeats, scoring included.
    stock_range, reduced_range
        Smallest and largest time.
    speed_up
        Ratio of the medians.
    macs_speed_up
        Ratio of MACs of whole layers, causal attention counted as half; scoring is not counted. The layer after which
        tokens leave counts in full, although its MLP runs on what stays.
    macs_speed_up_full_attention
        The same with attention counted in full.
    quotient
        `speed_up / macs_speed_up`.
    """

    visual_tokens: int
    text_tokens: int
    kept: int
    drop_after_layer: int
    layers: int
    hidden_size: int
    dtype: str
    threads: int
    machine: str
    repeats: int
    stock_seconds: float
    stock_range: tuple[float, float]
    reduced_seconds: float
    reduced_range: tuple[float, float]
    speed_up: float
    macs_speed_up: float
    macs_speed_up_full_attention: float
    quotient: float

    def to_dict(self) -> dict:
        """The figures as JSON types."""
        return asdict(self)


def measure_prefill(
    hidden_size: int = 1024, layers: int = 8, kept: int = 320, drop_after_layer: int = 0, repeats: int = 7
) -> PrefillSpeed:
    """Time last-token logits from `inputs_embeds`, stock sdpa and MustDrop alternating in one process.

    The input is one 672 px square image of LLaVA-NeXT (2,880 patches, 48 newlines) and 60 text tokens; weights are
    random. Both decoders share them.

    Parameters
    ----------
    hidden_size, layers
        Size of the Llama decoder.
    kept
        Visual tokens after the drop.
    drop_after_layer
        Zero-based layer after which tokens are dropped.
    repeats
        Timed runs of each decoder, after a warm-up.

    Returns
    -------
    PrefillSpeed
        The figures.

    Raises
    ------
    ValueError
        If an argument is out of range.
    RuntimeError
        If the drop did not leave `kept` tokens.
    """
    tokens = square_image_tokens(TEXT_TOKENS)
    visual = int(tokens.visual.sum())
    checked_number("repeats", repeats, whole=True, low=1)
    checked_number("drop_after_layer", drop_after_layer, whole=True, low=0, high=layers - 2)
    checked_number("kept", kept, whole=True, low=1, high=visual - 1)
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        vocab_size=1000,
        max_position_embeddings=8192,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    stock = LlamaForCausalLM(config).eval()
    staged = StagedLlamaModel(config).eval()
    staged.load_state_dict(stock.model.state_dict())
    average = ((drop_after_layer + 1) * visual + (layers - drop_after_layer - 1) * kept) / layers
    options = {"layers": [drop_after_layer], "visual_tokens": average, "newlines": "row", "key_ratio": 0.0}
    reducer = reductions("llava_next").build(
        reductions("llava_next").from_dict({"method": "mustdrop", **options}), Host(layers, hidden_size, image_size=336)
    )
    embeddings = torch.randn(1, visual + TEXT_TOKENS, hidden_size)

    def run_stock() -> torch.Tensor:
        return stock(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1).logits

    def run_staged():
        request = ReductionRequest(reducer, tokens)
        output = staged(inputs_embeds=embeddings, use_cache=True, reduction=request)
        return stock.lm_head(output.last_hidden_state[:, -1:]), cache_of(output)

    with torch.inference_mode():
        received = run_staged()[1].report().visual_tokens_per_layer
        if [row[0] for row in received] != [visual] * (drop_after_layer + 1) + [kept] * (layers - drop_after_layer - 1):
            raise RuntimeError(f"The drop left {received[-1][0]} visual tokens, not {kept}")
        stock_times, staged_times = _alternate(run_stock, run_staged, repeats)

    full = [visual + TEXT_TOKENS] * layers
    reduced = [row[0] + TEXT_TOKENS for row in received]
    allowed = {
        causal: decoder_macs(config, full, causal) / decoder_macs(config, reduced, causal) for causal in (True, False)
    }
    speed_up = statistics.median(stock_times) / statistics.median(staged_times)
    return PrefillSpeed(
        visual_tokens=visual,
        text_tokens=TEXT_TOKENS,
        kept=kept,
        drop_after_layer=drop_after_layer,
        layers=layers,
        hidden_size=hidden_size,
        dtype="float32",
        threads=torch.get_num_threads(),
        machine=f"{platform.machine()} CPU",
        repeats=repeats,
        stock_seconds=statistics.median(stock_times),
        stock_range=(min(stock_times), max(stock_times)),
        reduced_seconds=statistics.median(staged_times),
        reduced_range=(min(staged_times), max(staged_times)),
        speed_up=speed_up,
        macs_speed_up=allowed[True],
        macs_speed_up_full_attention=allowed[False],
        quotient=speed_up / allowed[True],
    )


def square_image_tokens(text_tokens: int) -> VisualTokens:
    """Provenance of a sequence `[1, length]`: one square image of five tiles of 24 x 24 patches, then text."""

    def pack(features, newline):
        fine = features[0][1:].view(2, 2, BASE_GRID, BASE_GRID, -1).permute(0, 2, 1, 3, 4)
        rows = fine.reshape(FINE_GRID, FINE_GRID, -1)
        ends = newline.expand(FINE_GRID, 1, -1)
        return [torch.cat([features[0][0], torch.cat([rows, ends], dim=1).flatten(0, 1)])]

    (image,) = anyres_layout(pack, [5], BASE_GRID)
    image.carry["cls_attention"] = torch.zeros(len(image))
    mask = torch.zeros(1, len(image) + text_tokens, dtype=torch.bool)
    mask[:, : len(image)] = True
    return VisualTokens.place([image], mask)


def _alternate(first: Callable, second: Callable, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of two functions, called in turn after a warm-up of each."""
    timers = [Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads()) for run in (first, second)]
    for timer in timers:
        timer.timeit(1)
    times = [[timer.timeit(1).median for timer in timers] for _ in range(repeats)]
    return [pair[0] for pair in times], [pair[1] for pair in times]
