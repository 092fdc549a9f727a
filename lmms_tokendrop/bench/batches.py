"""Throughput at the best batch size, and peak memory in a fresh process, of decoders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from lmms_tokendrop.bench.measuring import Progress, runners_of
from lmms_tokendrop.bench.models import Models, build
from lmms_tokendrop.bench.peak_memory import MemoryUse, in_fresh_process, memory_use
from lmms_tokendrop.bench.runners import STOCK
from lmms_tokendrop.bench.setting import Setting
from lmms_tokendrop.bench.throughput_protocol import BATCH_STEP, Spread, alternate, speed_up, try_batch_sizes
from lmms_tokendrop.bench.timing import clock_of

FIRST_BATCH = 16


@dataclass(frozen=True)
class Limits:
    """How long throughput is measured, and how large batches may become.

    Attributes
    ----------
    seconds, window : float
        Shortest time of each model over all rounds, and in one of them.
    memory_limit : float
        Bytes that the process may take while the batch size is raised.
    batch_size, max_batch_size : int or None
        Of every model, None: the best of each; and the largest to try, None: there is none.
    """

    seconds: float = 30.0
    window: float = 3.0
    memory_limit: float = float("inf")
    batch_size: int | None = None
    max_batch_size: int | None = None

    def sizes(self) -> itertools.count | range:
        """Batch sizes to try."""
        if self.max_batch_size is None:
            return itertools.count(FIRST_BATCH, BATCH_STEP)
        return range(FIRST_BATCH, self.max_batch_size + 1, BATCH_STEP)


@torch.inference_mode()
def measure_batches(
    setting: Setting,
    reductions: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    stock_attention: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Requests per second, from the pixels to the last new token, by PuMer's protocol.

    The stock model runs with an implementation of attention of its own.

    Returns
    -------
    list of dict
        Per image and model `batch_size`, `tried` (rates of each size), `requests_per_second` (spread over rounds) and
        `speed_up` over the stock model (spread of ratios within rounds).
    """
    device, models, rows = torch.device(setting.device), build(setting, reductions), []
    models.stock.set_attn_implementation(stock_attention)
    clock = clock_of(device)
    for image in setting.images:
        run = _Batches(setting, models, image)
        names = [STOCK, *models.reduced]
        tried: dict[str, dict[int, float]] = {name: {} for name in names}
        for number, name in enumerate(names):
            progress(f"batch sizes of {name}, {image}", number, len(names))
            if limits.batch_size is None:
                watch = partial(memory_use, device=device)
                tried[name] = try_batch_sizes(
                    partial(run, name),
                    limits.sizes(),
                    limits.memory_limit,
                    limits.window,
                    clock=clock,
                    measure_memory=watch,
                )
        sizes = {name: limits.batch_size or max(rates, key=rates.get) for name, rates in tried.items()}
        progress(f"throughput, {image}", 0, 1)
        runs = {name: partial(run, name, size) for name, size in sizes.items()}
        rates = alternate(runs, sizes, limits.seconds, limits.window, clock)
        progress(f"throughput, {image}", 1, 1)
        rows += [
            {
                "image": image,
                "name": name,
                "batch_size": sizes[name],
                "tried": tried[name],
                "requests_per_second": asdict(Spread.of(rates[name])),
                "speed_up": asdict(speed_up(rates[name], rates[STOCK])),
            }
            for name in names
        ]
    return rows


class _Batches:
    """Runs a model on a batch of a size; what it is given is made once."""

    def __init__(self, setting: Setting, models: Models, image: str):
        self.setting, self.models, self.image = setting, models, image
        self.made: dict[int, dict[str, Callable[[], Any]]] = {}

    def __call__(self, name: str, batch_size: int) -> None:
        if batch_size not in self.made:
            setting = self.setting.of_batch(batch_size)
            self.made[batch_size] = {
                one: runner.whole for one, runner in runners_of(setting, self.models, self.image).items()
            }
        self.made[batch_size][name]()


def measure_memory(
    setting: Setting, reductions: Mapping[str, Mapping[str, Any]], progress: Progress
) -> list[dict[str, Any]]:
    """Peak memory of generation, each model in a process of its own.

    Returns
    -------
    list of dict
        Per image and model `before` (bytes with weights and input), `peak`, and `change_of_added`, what generation
        adds, relative to the stock model.
    """
    rows, names = [], [STOCK, *reductions]
    for image in setting.images:
        used = {}
        for number, name in enumerate(names):
            progress(f"memory of {name}, {image}", number, len(names))
            used[name] = in_fresh_process(memory_of, setting, reductions, name, image)
        progress(f"memory, {image}", len(names), len(names))
        rows += [
            {
                "image": image,
                "name": name,
                "batch_size": setting.batch_size,
                **asdict(used[name]),
                "change_of_added": used[name].added / used[STOCK].added - 1,
            }
            for name in names
        ]
    return rows


@torch.inference_mode()
def memory_of(setting: Setting, reductions: Mapping[str, Mapping[str, Any]], name: str, image: str) -> MemoryUse:
    """Memory that one model takes for one generation in this process."""
    first = next(iter(reductions))
    wanted = {name: reductions[name]} if name != STOCK else {first: reductions[first]}
    models = build(setting, wanted)
    models.stock.set_attn_implementation(setting.attention)
    runner = runners_of(setting, models, image)[name]
    return memory_use(runner.whole, torch.device(setting.device))
