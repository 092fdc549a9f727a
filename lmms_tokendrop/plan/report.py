"""A plan as tables for a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.plan.planning import Limit, fitted, plan
from lmms_tokendrop.plan.plans import DECODE, PREFILL, Macs, Plan, Request
from lmms_tokendrop.plan.scoring import scored
from lmms_tokendrop.plan.targets import Target

MEANING = (
    "MACs are multiply-accumulates of one request, half of its FLOPs, with attention in full unless it says causal; "
    "heads and norms are left out. Their ratio is the speed-up that they allow. Scoring is what a method computes to "
    "decide, and in no sum."
)
NOTHING = Macs.of(0)
Row = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A variant beside the unreduced model.

    Parameters
    ----------
    target
        Name of the model.
    unreduced, reduced
        Their plans; None: only the unreduced one was asked for.
    """

    target: str
    unreduced: Plan
    reduced: Plan | None

    @property
    def shown(self) -> Plan:
        """The plan that was asked for."""
        return self.reduced or self.unreduced

    def to_json(self) -> str:
        """All figures; MACs with attention in `full`, and `causal`."""
        found: dict[str, Any] = {"target": self.target, "unreduced": self.unreduced.to_dict()}
        if self.reduced is not None:
            found["reduced"] = self.reduced.to_dict()
            found["speed_ups"] = {name: vars(macs) for name, macs in self.reduced.speed_ups(self.unreduced).items()}
        return json.dumps(found, indent=2)

    def show(self) -> None:
        """Print tables, and what they rest on."""
        console, shown = Console(highlight=False), self.shown
        options = ", ".join(f"{name}={value}" for name, value in shown.given.items())
        console.print(f"{self.target}, {options}", markup=False)
        console.print(_table(("", "unreduced", "this", "ratio"), self._rows()))
        entries = "entries of the cache"
        console.print(
            _table(("layers", "visual tokens", "text tokens", *([entries] if shown.cached else [])), layers(shown))
        )
        if shown.stages:
            kinds = tuple(next(iter(shown.stages.values())))
            rows = [(name, *(str(left[kind]) for kind in kinds)) for name, left in shown.stages.items()]
            console.print(_table(("left by a stage", *(kind.replace("_", " ") for kind in kinds)), rows))
        for sentence in (MEANING, *shown.assumed):
            console.print(sentence, markup=False)

    def _rows(self) -> Iterator[Row]:
        for name, of, shown in figures(self.shown):
            whole, ours = of(self.unreduced), of(self.shown)
            yield name, shown(whole), shown(ours), f"{whole / ours:.2f}" if whole and ours else ""


def planned(target: Target, reduction: dict[str, Any], request: Request, limit: Limit | None = None) -> Report:
    """Plan a model, with a bar if a budget is looked for.

    Parameters
    ----------
    target
        The model.
    reduction
        Options of its reduction.
    request
        What it is asked.
    limit
        What a budget has to meet; None: the options are taken as they are.

    Raises
    ------
    ValueError
        If an option is wrong, or a budget can't be reached or found.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("unreduced", total=None)
        unreduced, reduced = plan(target, {"method": UNREDUCED}, request), None
        bars.update(bar, description=reduction["method"])
        if limit is not None:
            reduced = fitted(target, reduction, request, unreduced, limit, partial(bars.update, bar, advance=1))
        elif reduction["method"] != UNREDUCED:
            reduced = plan(target, reduction, request)
        if reduced is not None:
            bars.update(bar, description="scoring")
            reduced = scored(target, reduced, request)
    return Report(target.name, unreduced, reduced)


Figure = tuple[str, Callable[[Plan], float], Callable[[float], str]]


def figures(shown: Plan) -> Iterator[Figure]:
    """What the first table has of a plan: name, value and its text."""
    yield "visual tokens, that a layer receives", lambda plan: plan.average_input, "{:.1f}".format
    yield "visual tokens, behind its drop", lambda plan: plan.average_release, "{:.1f}".format
    for name in shown.macs:
        yield f"MACs: {name}", lambda plan, name=name: plan.macs.get(name, NOTHING).full, macs_text
    for name in [name for name in shown.phases if name != DECODE]:
        if PREFILL in shown.macs:
            yield f"MACs, causal: {name}", lambda plan, name=name: plan.phases[name].causal, macs_text
        else:
            yield f"MACs: {name}", lambda plan, name=name: plan.phases[name].full, macs_text
    if shown.published_macs:
        yield "MACs, papers' formula: prefill", lambda plan: plan.published_macs, macs_text
    if shown.kv_bytes:
        yield "bytes: a token of the cache", lambda plan: plan.kv_bytes_per_token, "{:,}".format
        yield "MB: cache of a request", lambda plan: plan.kv_bytes, megabytes
        yield "MB: its visual tokens", lambda plan: plan.visual_kv_bytes, megabytes
    if shown.kv_bytes and shown.concurrent > 1:
        yield f"MB: cache of {shown.concurrent} requests", lambda plan: plan.kv_bytes_of_all, megabytes


def macs_text(macs: float) -> str:
    """Multiply-accumulates with a unit."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if macs >= size:
            return f"{macs / size:.2f} {unit}"
    return f"{macs:.0f}"


def megabytes(count: float) -> str:
    """Bytes in millions."""
    return f"{count / 1e6:,.1f}"


def layers(plan: Plan) -> list[Row]:
    """Neighbouring layers that receive and hold the same, a line each."""
    columns = [plan.visual_tokens, plan.text_tokens, *([plan.cached] if plan.cached else [])]
    rows = []
    for counts, group in groupby(enumerate(zip(*columns, strict=True)), key=lambda layer: layer[1]):
        numbers = [number for number, _ in group]
        name = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
        rows.append((name, *map(str, counts)))
    return rows


def _table(header: Sequence[str], rows: Iterable[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
