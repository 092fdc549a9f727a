"""Time the parts of reduced models beside the stock one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import torch

from lmms_tokendrop.bench.costs import Costs, costs, vision_macs
from lmms_tokendrop.bench.layers_alone import LayersAlone
from lmms_tokendrop.bench.machine import machine
from lmms_tokendrop.bench.models import Models, build
from lmms_tokendrop.bench.prompts import Prompt
from lmms_tokendrop.bench.published import PublishedRunner
from lmms_tokendrop.bench.runners import STOCK, ReducedRunner, StockRunner
from lmms_tokendrop.bench.setting import Setting, pair
from lmms_tokendrop.bench.throughput_protocol import Spread
from lmms_tokendrop.bench.timing import Clock, clock_of, seconds_in_turn
from lmms_tokendrop.bench.watching import seconds_of_parts

Progress = Callable[[str, int, int], None]
"""Takes what is measured, and how many runs of how many are done."""

TIMED = ("vision", "prefill", "decode", "whole")
PARTS = (*TIMED, "shares")
"""What is measured in one process, of each image."""

IN_DECODER = ("prefill", "decode")
"""Those that baselines on a reduced model's tokens are timed in too."""

ALLOWED = {"vision": "MACs", "prefill": "MACs, causal attention", "decode": "bytes read"}
"""What the time of a part would follow, if nothing else took any."""


@torch.inference_mode()
def measure(
    setting: Setting,
    reductions: Mapping[str, Mapping[str, Any]],
    parts: Sequence[str],
    published: bool = False,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
    """Measure parts of every model on every image.

    Parameters
    ----------
    setting
        Models and prompts.
    reductions
        Options of each reduced model by name.
    parts
        Of `PARTS`.
    published
        Whether prefill and decode of MustDrop's published implementation are timed too, beside each reduced model.
    progress
        Told of every run.

    Returns
    -------
    dict
        As JSON types: what was measured on what; `stock_attention`, the implementation with which the stock model is
        fastest, of those in `stock_attentions_tried` (seconds of a prefill); `rows`, one for each part, image and
        model, in prefill and decode also for the layers of each reduced model alone; `costs`, counted and checked; and
        `shares`, what scoring and selecting take.
    """
    clock, models = clock_of(torch.device(setting.device)), build(setting, reductions)
    results: dict[str, Any] = {**machine(torch.device(setting.device)), **asdict(setting), "reductions": reductions}
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    for image in setting.images:
        runners = runners_of(setting, models, image)
        counted = {name: costs(runner) for name, runner in runners.items()}
        if "stock_attention" not in results:
            results["stock_attentions_tried"] = tried = try_attentions(setting, runners[STOCK], clock, progress)
            results["stock_attention"] = min(tried, key=tried.get)
            models.stock.set_attn_implementation(results["stock_attention"])
        found += [{"image": image, "name": name, **asdict(known)} for name, known in counted.items()]
        for part in TIMED:
            if part in parts:
                rows += _timed(part, image, setting, runners, counted, published, clock, progress)
        if "shares" in parts:
            shares += _shares(image, setting, runners, clock, progress)
    return {**results, "rows": rows, "costs": found, "shares": shares}


def runners_of(setting: Setting, models: Models, image: str) -> dict[str, Any]:
    """Every model on a prompt with an image of that size; the stock one first, on the first reduced model's prompt."""
    size, text, batch = pair("images", image), setting.text_tokens, setting.batch_size
    prompts = {name: Prompt.of(model, size, text, batch) for name, model in models.reduced.items()}
    reduced = {
        name: ReducedRunner(name, model, prompts[name], setting.new_tokens) for name, model in models.reduced.items()
    }
    return {STOCK: StockRunner(models.stock, next(iter(prompts.values())), setting.new_tokens), **reduced}


def try_attentions(setting: Setting, stock: StockRunner, clock: Clock, progress: Progress) -> dict[str, float]:
    """Seconds of the stock model's prefill with each implementation of attention that runs here."""

    def run(name: str) -> None:
        stock.model.set_attn_implementation(name)
        stock.prefill()

    runs = {name: partial(run, name) for name in setting.stock_attentions()}
    stock.embeddings  # noqa: B018, once, before the first is timed
    times = seconds_in_turn(told("the stock model's attention", runs, 1, progress), 1, clock)
    return {name: seconds for name, (seconds,) in times.items()}


def _timed(
    part: str,
    image: str,
    setting: Setting,
    runners: Mapping[str, Any],
    counted: Mapping[str, Costs],
    published: bool,
    clock: Clock,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Rows of one part of all models, of which the stock one is first."""
    stock, *reduced = runners.values()
    in_decoder = part in IN_DECODER
    alone = {one.name: LayersAlone(one) for one in reduced if in_decoder}
    baselines = {one.name: PublishedRunner(one) for one in reduced if in_decoder and published}
    timed = {STOCK: stock}
    for one in reduced:
        beside = [found[one.name] for found in (alone, baselines) if one.name in found]
        timed |= {each.name: each for each in (one, *beside)}
    counted = {**counted, **{other.name: counted[name] for name, other in alone.items()}}
    if part != "vision":
        for runner in runners.values():
            runner.embeddings  # noqa: B018, made before the first run
    if part == "decode":
        for runner in timed.values():
            runner.prefilled  # noqa: B018
    runs = {name: getattr(runner, part) for name, runner in timed.items()}
    times = seconds_in_turn(told(f"{part}, {image}", runs, setting.repeats, progress), setting.repeats, clock)
    steps = setting.new_tokens if part == "decode" else 1
    rows = []
    for name in timed:
        spread = Spread.of([seconds / steps for seconds in times[name]])
        row = {"part": part, "image": image, "name": name, "seconds": asdict(spread)}
        row["speed_up"] = asdict(ratios(times[STOCK], times[name]))
        if name in counted and part in ALLOWED:
            row["allowed"] = allowed(part, runners, counted, name)
            row["quotient"] = row["speed_up"]["median"] / row["allowed"]
        if name in baselines:
            row["over_published"] = asdict(ratios(times[baselines[name].name], times[name]))
        rows.append(row)
    return rows


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """Of times in the same rounds."""
    return Spread.of([one / other for one, other in zip(slower, faster, strict=True)])


def allowed(part: str, runners: Mapping[str, Any], counted: Mapping[str, Costs], name: str) -> float:
    """The speed-up over the stock model that `ALLOWED` of a part gives."""
    stock, one = counted[STOCK], counted[name]
    if part == "prefill":
        return stock.causal_macs / one.causal_macs
    if part == "decode":
        return (stock.weight_bytes + stock.kv_bytes) / (one.weight_bytes + one.kv_bytes)
    return vision_macs(runners[STOCK]) / vision_macs(runners[name])


def _shares(
    image: str, setting: Setting, runners: Mapping[str, Any], clock: Clock, progress: Progress
) -> list[dict[str, Any]]:
    """What stages take: medians of the shares in each round.

    `rows` and `selection`, rows included, are shares of the reduced prefill; `before` is what stages take in the tower
    and before the first layer, as a share of the stock prefill.
    """
    whole: dict[str, list[dict[str, float]]] = {name: [] for name in runners}

    def run(name: str) -> None:
        runner = runners[name]
        runner.embeddings  # noqa: B018
        with seconds_of_parts(clock) as spent:
            runner.vision()
            start = clock()
            runner.prefill()
            whole[name].append({**spent, "prefill": clock() - start})

    runs = {name: partial(run, name) for name in runners}
    seconds_in_turn(told(f"shares, {image}", runs, setting.repeats, progress), setting.repeats, clock)
    rounds = {name: found[1:] for name, found in whole.items()}

    def share(name: str, parts: Sequence[str], of: str) -> float:
        pairs = zip(rounds[name], rounds[of], strict=True)
        return median(sum(one.get(part, 0) for part in parts) / other["prefill"] for one, other in pairs)

    return [
        {
            "image": image,
            "name": name,
            "rows": share(name, ("rows",), name),
            "selection": share(name, ("decoder",), name),
            "before": share(name, ("tower", "before"), STOCK),
        }
        for name in runners
        if name != STOCK
    ]


def told(
    name: str, runs: Mapping[str, Callable[[], Any]], rounds: int, progress: Progress
) -> dict[str, Callable[[], Any]]:
    """The same functions, telling of each call of them and of one more round that is not timed."""
    done, total = iter(range(1, (1 + rounds) * len(runs) + 1)), (1 + rounds) * len(runs)
    progress(name, 0, total)

    def run(function: Callable[[], Any]) -> None:
        function()
        progress(name, next(done), total)

    return {one: partial(run, function) for one, function in runs.items()}
