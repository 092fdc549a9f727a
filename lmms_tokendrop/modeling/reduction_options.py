"""Options of a reduction: checking them, and naming what is allowed where one is wrong."""

import sys
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, ClassVar, Self


def option(default, help: str, allowed: tuple | None = None, low: float | None = None, high: float | None = None):
    """A field of :class:`ReductionOptions` with its help text and the values that it takes."""
    return field(default=default, metadata={"help": help, "allowed": allowed, "low": low, "high": high})


@dataclass
class ReductionOptions:
    """Base of the options of one family of models. Subclasses are dataclasses whose fields :func:`option` makes.

    Attributes
    ----------
    reducers : dict[str, type]
        The family's methods.
    presets : dict[str, dict]
        Named settings, for a field `preset`.
    alternatives : tuple[frozenset[str], ...]
        Sets of options of which one at most is given.
    """

    reducers: ClassVar[dict[str, Any]] = {}
    presets: ClassVar[dict[str, dict]] = {}
    alternatives: ClassVar[tuple[frozenset[str], ...]] = ()

    @classmethod
    def from_dict(cls, options: dict | None) -> Self:
        """Check options and fill in defaults.

        Parameters
        ----------
        options : dict or None
            Option names and values; None means `{"method": "none"}`.

        Returns
        -------
        ReductionOptions
            The options; a `preset` is resolved into what it stands for.

        Raises
        ------
        ValueError
            For an unknown key, a value out of range, an option that the method does not read, or options that
            exclude each other. The message names the key and what is allowed.
        """
        if not isinstance(options, dict | None):
            raise ValueError(
                f"token_reduction={options!r}; allowed: a dict of options, such as {{'method': 'mustdrop'}}"
            )
        options = dict(options or {})
        read_by_some = {"method"}.union(*(reducer.options for reducer in cls.reducers.values()))
        names = {entry.name: entry for entry in fields(cls) if entry.name in read_by_some}
        for key, value in options.items():
            if key not in names:
                near = get_close_matches(str(key), names, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(f"token_reduction: unknown option {key!r}{hint}; allowed: {', '.join(names)}")
            options[key] = checked_value(names[key], value)
        method = options.get("method", "none")
        read = cls.reducers[method].options
        for key, value in options.items():
            if key != "method" and key not in read and value != names[key].default:
                allowed = ", ".join(sorted(read)) or "none"
                raise ValueError(f"token_reduction: method {method!r} has no option {key!r}; its options: {allowed}")
        cls.check_exclusions(options)
        defaults = cls.earlier_defaults(options)
        preset = options.pop("preset", None)
        return cls(**{**defaults, **cls.presets.get(preset, {}), **options})

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Raise a ValueError for checked options that exclude each other."""

    @classmethod
    def earlier_defaults(cls, options: dict) -> dict:
        """Defaults that are others for checked options of an earlier format."""
        return {}

    @classmethod
    def restored(cls, saved: dict | None) -> dict:
        """Options as a configuration file has them, with the number of the format that they were saved in."""
        return dict(saved or {})

    @classmethod
    def defaults(cls, method: str) -> dict:
        """Options of a method of which none is given, with the number of today's format."""
        return {"method": method}

    @classmethod
    def merged(cls, saved: dict, given: dict) -> dict:
        """Options that were saved, with others given for the same method.

        What is given holds, and what is saved beside it. A given preset replaces everything that is saved, and a given
        option those that exclude it (`alternatives`).
        """
        if "preset" in given:
            return {**given, "method": saved["method"]}
        chosen = [way for way in cls.alternatives if way & given.keys()]
        excluded = {name for way in cls.alternatives if chosen and way not in chosen for name in way}
        return {**{name: value for name, value in saved.items() if name not in excluded}, **given}

    def to_dict(self) -> dict:
        """The options that differ from their defaults, and the method."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        defaults = {entry.name: entry.default for entry in fields(self)}
        return {key: value for key, value in values.items() if key == "method" or value != defaults[key]}


def checked_value(entry, value):
    """The value of an option, or a ValueError that names the option and what is allowed."""
    about, name = entry.metadata, entry.name
    if value is None and entry.default is None:
        return None
    if name == "preset" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if about["allowed"] is not None:
        if value not in about["allowed"]:
            raise ValueError(f"token_reduction: {name}={value!r}; allowed: {', '.join(map(repr, about['allowed']))}")
        return value
    if name == "layers":
        return _checked_layers(value)
    if isinstance(entry.default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"token_reduction: {name}={value!r}; allowed: True, False")
        return value
    whole = entry.type in (int, int | None)
    return checked_number(f"token_reduction: {name}", value, whole=whole, low=about["low"], high=about["high"])


def checked_number(name: str, value, *, whole: bool, low: float, high: float | None = None, below: float | None = None):
    """The value of an option that is a number, finite and in range.

    Parameters
    ----------
    name : str
        What the error calls the option.
    value
        Of any type.
    whole : bool
        Whether only an `int` will do.
    low, high : float
        Smallest and largest value; None: no largest one.
    below : float or None
        The value is smaller than this.

    Raises
    ------
    ValueError
        If the value is something else, infinite, not a number or out of range; names the option and what is allowed.
    """
    right_kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    highest = sys.float_info.max if high is None else high
    if right_kind and low <= value <= highest and (below is None or value < below):
        return value
    number = "a whole number" if whole else "a number"
    raise ValueError(f"{name}={value!r}; allowed: {number} {span(low, high, below)}")


def span(low: float, high: float | None = None, below: float | None = None) -> str:
    """The range of a number in words."""
    to = "" if high is None else f" to {high:.10g}"
    return f"from {low:.10g}{to}" + ("" if below is None else f", below {below:.10g}")


def _checked_layers(value) -> list[int]:
    whole = isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    if not whole or not value or value[0] < 0 or any(a >= b for a, b in pairwise(value)):
        raise ValueError(f"token_reduction: layers={value!r}; allowed: a list of ascending whole numbers from 0")
    return list(value)
