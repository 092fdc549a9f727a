"""What ``lmms-tokendrop compare`` runs: each method at each budget with each seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmms_eval.utils import simple_parse_args_string
from transformers import PreTrainedConfig

from lmms_tokendrop.catalogue import POCKET, Variant, architectures, variants
from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.modeling.core.decoder_options import COUNT_BUDGETS
from lmms_tokendrop.modeling.core.options import takes_list
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.results.compared import FULL, VALIDATION

COUNTERS = ("input", "release")
"""What a budget can count."""

SEPARATOR = ":"
"""Stands between a method's name and each of its options."""

CALIBRATED = "calibrated"
"""Stands for the value of an option that is to be found."""


def planned(
    setting: Setting,
    tasks: Sequence[str],
    methods: Sequence[str] | None,
    budgets: Sequence[str],
    counter: str,
    seeds: Sequence[int],
    calibrate_on: str | None = None,
) -> list[Run]:
    """List the runs of a comparison.

    Parameters
    ----------
    setting
        What they have in common.
    tasks
        Names of tasks.
    methods
        Each a method's name, and behind colons options that it always has (``mustdrop:key_ratio=0``), of which one may
        be `CALIBRATED`; None for all of the architecture that require no option.
    budgets
        Each a share (``25%``) of the visual tokens, or an average number of them.
    counter
        What budgets count.
    seeds
        For methods that draw at random.
    calibrate_on
        The task on whose documents options are calibrated; None for that of the run's name and `VALIDATION`.

    Returns
    -------
    list of Run
        The unreduced model first, then budget by budget, then what has a setting of its own: methods that no count
        budget fits, and those whose options say already what stays. A task at a time.

    Raises
    ------
    ValueError
        For an unknown method, an option or value that it does not take, or a malformed budget, counter or seed.
    """
    if counter not in COUNTERS:
        raise ValueError(f"counter={counter!r}; allowed: {', '.join(COUNTERS)}")
    _check_lists(tasks=tasks, methods=(UNREDUCED,) if methods is None else methods, budgets=budgets, seeds=seeds)
    if any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds={','.join(map(str, seeds))}; allowed: whole numbers from 0")
    stated = {budget: budget_option(budget) for budget in budgets}
    known = {entry.method: entry for entry in variants(architecture=setting.architecture)}
    if methods is None:
        methods = [name for name in known if not reductions(setting.architecture).options_of(name).required]
    contenders = [Contender.of(text, known, setting) for text in methods]
    full = Contender.of(UNREDUCED, known, setting)
    runs = []
    for task in tasks:
        runs += full.seeded(task, seeds)
        for budget, option in stated.items():
            for one in contenders:
                if one.calibrates:
                    found = one.seeded(task, seeds, budget, counter)
                    on = calibrate_on or task + VALIDATION
                    runs += [replace(run, calibrates=one.calibrates, calibrate_on=on) for run in found]
                elif one.takes_budgets:
                    runs += one.seeded(task, seeds, budget, counter, {**option, "counter": counter})
        for one in contenders:
            if not one.takes_budgets and not one.calibrates and one != full:
                runs += one.seeded(task, seeds)
    return runs


@dataclass(frozen=True)
class Contender:
    """A method with the options that it always has.

    Parameters
    ----------
    label
        As asked for.
    variant
        Name for ``lmms-eval --model``.
    given
        Its options.
    takes_budgets
        Whether a count budget goes with them.
    calibrates
        The option among them whose value is to be found; None if there is none.
    draws
        Whether a seed does.
    """

    label: str
    variant: str
    given: Mapping[str, Any]
    takes_budgets: bool
    calibrates: str | None
    draws: bool

    @classmethod
    def of(cls, text: str, known: Mapping[str, Variant], setting: Setting) -> Contender:
        """Read one of the `methods` of :func:`planned`, of which `known` has the variants."""
        method, *words = text.split(SEPARATOR)
        if method not in known:
            raise ValueError(f"methods: {method!r}; allowed for {setting.architecture}: {', '.join(known)}")
        if not all("=" in word for word in words):
            raise ValueError(f"methods: {text!r}; allowed: a method and its options, such as mustdrop:key_ratio=0")
        given = simple_parse_args_string(",".join(words))
        found = [name for name, value in given.items() if value == CALIBRATED]
        given = {name: value for name, value in given.items() if name not in found}
        _, read = parse_model_args(
            {**given, **setting.model_args},
            method=method,
            pretrained=setting.pretrained,
            architecture=setting.architecture,
        )
        checked, options = reductions(setting.architecture), {"method": method, **read}
        checked.from_dict(options)
        entries = checked.options_of(method).entries()
        for name in found:
            entry = checked.entry(method, name)
            if len(found) > 1 or entry is None or entry.metadata["low"] is None or takes_list(entry):
                raise ValueError(f"methods: {text!r}; allowed: {CALIBRATED} for one option of {method}, a number")

        def go_with(**more: float) -> bool:
            try:
                checked.from_dict({**options, **more})
            except ValueError:
                return False
            return True

        return cls(
            label=FULL if method == UNREDUCED else text,
            variant=known[method].model_id,
            given=given,
            calibrates=found[0] if found else None,
            takes_budgets=entries.keys() - given.keys() >= COUNT_BUDGETS and go_with(keep_ratio=0.5),
            draws="seed" in entries.keys() - given.keys() and go_with(seed=1),
        )

    def seeded(
        self,
        task: str,
        seeds: Sequence[int],
        budget: str | None = None,
        counter: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[Run]:
        """Its runs on a task: one, or one for each seed."""
        stated = {**self.given, **(options or {})}
        if not self.draws:
            return [Run(task, self.label, self.variant, budget, counter, None, stated)]
        return [Run(task, self.label, self.variant, budget, counter, seed, {**stated, "seed": seed}) for seed in seeds]


def budget_option(text: str) -> dict[str, float]:
    """The option that a budget is: ``keep_ratio`` of a share such as ``25%``, ``visual_tokens`` of a number."""
    number, name, most = (text[:-1], "keep_ratio", 100.0) if text.endswith("%") else (text, "visual_tokens", math.inf)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value <= most or math.isinf(value):
        raise ValueError(f"budgets: {text!r}; allowed: a share such as 25%, up to 100%, or a number of visual tokens")
    return {name: value / 100 if name == "keep_ratio" else value}


def _check_lists(**lists: Sequence[Any]) -> None:
    for name, given in lists.items():
        if not given or len(set(given)) < len(given):
            raise ValueError(f"{name}={','.join(map(str, given))}; allowed: at least one, and each once")


def listed(text: str) -> list[str]:
    """The parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(argument: str, text: str) -> list[int]:
    """The whole numbers of a list with commas; a ValueError names the argument."""
    try:
        return list(map(int, listed(text)))
    except ValueError:
        raise ValueError(f"{argument}={text!r}; allowed: whole numbers, separated by commas") from None


def architecture_of(pretrained: str, revision: str | None = None) -> str:
    """The architecture of a checkpoint, from its configuration; of the bundled ones LLaVA-NeXT.

    Raises
    ------
    ValueError
        If it is none of the catalogue.
    OSError
        If there is no such checkpoint.
    """
    if pretrained.startswith(POCKET):
        return architectures()[0].name
    location = {} if revision is None else {"revision": revision}
    kind = PreTrainedConfig.get_config_dict(pretrained, **location)[0].get("model_type")
    for entry in architectures():
        if kind in entry.model_types:
            return entry.name
    known = ", ".join(entry.name for entry in architectures())
    raise ValueError(f"pretrained={pretrained!r} is a checkpoint of {kind}; allowed: one of {known}")
