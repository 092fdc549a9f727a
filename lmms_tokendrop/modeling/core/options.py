"""Options of a reduction: checking them, and naming what is allowed where one is wrong."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar

COMPOSED, COMPOSABLE = "composed", ("vision", "features", "decoder", "decode")
"""The method that delegates to others, and the places that it has them for, in the order in which tokens pass."""


def option(default, help: str, allowed: tuple | None = None, low: float | None = None, high: float | None = None):
    """A field of :class:`Options` with its help text and the values that it takes."""
    return field(default=default, metadata={"help": help, "allowed": allowed, "low": low, "high": high})


@dataclass
class Options:
    """Base of the options of a method. Subclasses are dataclasses whose fields :func:`option` makes.

    Attributes
    ----------
    presets : dict[str, dict]
        Named settings, for a field `preset`.
    alternatives : tuple[frozenset[str], ...]
        Sets of options of which one at most is given.
    calibrated : tuple[str, float] or None
        Where the data decide how many tokens are left: the option that, the higher it is, leaves the fewer, and its
        largest value of interest. A budget is met by finding its value on samples.
    required : dict[str, str]
        Options that have to be given, and a value for each as an example.
    first_format : int or None
        Format of configurations that were saved without its number; None: a format says nothing of the method.
    """

    presets: ClassVar[dict[str, dict]] = {}
    alternatives: ClassVar[tuple[frozenset[str], ...]] = ()
    calibrated: ClassVar[tuple[str, float] | None] = None
    required: ClassVar[dict[str, str]] = {}
    first_format: ClassVar[int | None] = None

    method: str = option("none", "The method.")

    @classmethod
    def entries(cls) -> dict[str, Field]:
        """The options by name, without the method."""
        return {entry.name: entry for entry in fields(cls) if entry.name != "method"}

    @classmethod
    def checked(cls, options: dict, reductions: "Reductions") -> "Options":
        """The method's options, checked, with defaults filled in; see :meth:`Reductions.from_dict`.

        Parameters
        ----------
        options : dict
            Names and values, the method among them.
        reductions : Reductions
            The methods of the architecture.
        """
        own, given, values = reductions.offered(cls), dict(options), {}
        method = given.pop("method")
        implied = {name: value for name, value in reductions.implied.items() if name in cls.entries()}
        for key, value in given.items():
            if key in own:
                values[key] = checked_value(own[key], value)
                continue
            allowed = ", ".join(sorted(own)) or "none"
            if key in implied and value in (implied[key], cls.entries()[key].default):
                continue
            if key in implied:
                raise ValueError(
                    f"token_reduction: {key}={value!r} has no meaning here, where {key} can only be "
                    f"{implied[key]!r}; options of method {method!r}: {allowed}"
                )
            known = reductions.entries()
            if key not in known:
                near = get_close_matches(str(key), ("method", *known), n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(f"token_reduction: unknown option {key!r}{hint}; allowed: method, {', '.join(known)}")
            if value != known[key].default:
                raise ValueError(f"token_reduction: method {method!r} has no option {key!r}; its options: {allowed}")
        for name, example in cls.required.items():
            if values.get(name) is None:
                raise ValueError(f"token_reduction: method {method!r} needs {name}, such as {name}={example!r}")
        cls.check_exclusions({**implied, **values})
        earlier = cls.earlier_defaults({**implied, **values})
        preset = cls.presets.get(values.pop("preset", None), {})
        return cls(**{"method": method, **earlier, **preset, **values})

    @property
    def methods(self) -> tuple[str, ...]:
        """The method, and those that it delegates to."""
        return (self.method,)

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Raise a ValueError for checked options that exclude each other."""

    @classmethod
    def earlier_defaults(cls, options: dict) -> dict:
        """Defaults that are others for checked options of an earlier format."""
        return {}

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
        """The method, and the options that differ from their defaults."""
        values = {name: (getattr(self, name), entry.default) for name, entry in self.entries().items()}
        return {"method": self.method, **{name: value for name, (value, usual) in values.items() if value != usual}}


class Reductions:
    """The methods of an architecture, and what options mean for them.

    Parameters
    ----------
    reducers : Mapping[str, type]
        Reducer of each method, `"none"` among them; each has its options as `Options`.
    exported : Callable, optional
        From methods to texts of files, by name without ``.py``, that differ in a model exported with them.
    implied : Mapping[str, Any], optional
        Options that are not offered, since the architecture has nothing for them to act on, and what they would say.
    """

    def __init__(self, reducers: Mapping[str, Any], exported: Callable | None = None, implied: Mapping | None = None):
        self.reducers, self.implied = reducers, implied or {}
        self.exported = exported or (lambda *methods: {})

    def from_dict(self, options: dict | None) -> Options:
        """Check options and fill in defaults.

        Parameters
        ----------
        options : dict or None
            Option names and values; None means `{"method": "none"}`. Options without a method that name one for a
            place are those of a composition.

        Returns
        -------
        Options
            The options of the method; a `preset` is resolved into what it stands for.

        Raises
        ------
        ValueError
            For an unknown key, a value out of range, an option that the method does not read or that is implied, or
            options that exclude each other. The message names the key and what is allowed.
        """
        if not isinstance(options, dict | None):
            raise ValueError(f"token_reduction={options!r}; allowed: a dict such as {{'method': 'mustdrop'}}")
        options = dict(options or {})
        composed = not options.keys().isdisjoint(COMPOSABLE) and COMPOSED in self.reducers
        method = options.setdefault("method", COMPOSED if composed else "none")
        return self.options_of(method).checked(options, self)

    def entries(self) -> dict[str, Field]:
        """The options of any of the methods, by name."""
        offered = [self.offered(reducer.Options) for reducer in self.reducers.values()]
        return {name: entry for entries in offered for name, entry in entries.items()}

    def offered(self, kind: type[Options]) -> dict[str, Field]:
        """The options of a method's class, by name, without those that are implied."""
        return {name: entry for name, entry in kind.entries().items() if name not in self.implied}

    def entry(self, method: str, name: str) -> Field | None:
        """The option that a method takes by a name, in a composition also `METHOD.OPTION`; None if there is none."""
        part, dot, of_part = name.rpartition(".")
        if dot and method == COMPOSED and part in self.reducers:
            method, name = part, of_part
        return self.offered(self.options_of(method)).get(name)

    def options_of(self, method: str) -> type[Options]:
        """The class of a method's options; a ValueError names the methods if there's none of the name."""
        if method not in self.reducers:
            raise ValueError(f"token_reduction: method={method!r}; allowed: {', '.join(map(repr, self.reducers))}")
        return self.reducers[method].Options

    def restored(self, saved: dict | None) -> dict:
        """Options as a configuration file has them, with the number of the format that they were saved in."""
        saved = dict(saved or {})
        reducer = self.reducers.get(saved.get("method", "none"))
        first = None if reducer is None else reducer.Options.first_format
        return saved if first is None else {"format": first, **saved}

    def defaults(self, method: str) -> dict:
        """Options of a method of which none is given, with the number of today's format."""
        kind = self.options_of(method)
        current = {} if kind.first_format is None else {"format": kind.entries()["format"].default}
        return {"method": method, **current}

    def merged(self, saved: dict, given: dict) -> dict:
        """As :meth:`Options.merged`."""
        return self.options_of(saved["method"]).merged(saved, given)

    def build(self, options: Options, host):
        """The reducer for a model."""
        return self.reducers[options.method](options, host)


def checked_value(entry, value):
    """The value of an option, or a ValueError that names the option and what is allowed."""
    about, name = entry.metadata, entry.name
    if value is None and entry.default is None:
        return None
    if name == "preset" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if about["allowed"] is not None:
        right, allowed = value in about["allowed"], ", ".join(map(repr, about["allowed"]))
    elif entry.type in (str, str | None):
        right, allowed = isinstance(value, str) and bool(value), "a name"
    elif isinstance(entry.default, bool):
        right, allowed = isinstance(value, bool), "True, False"
    elif takes_list(entry):
        least, ascending = about["low"] or 0, name == "layers"
        whole = isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        right = whole and len(value) > 0 and min(value) >= least
        right = right and (not ascending or list(value) == sorted(set(value)))
        allowed = f"a list of {'ascending ' if ascending else ''}whole numbers from {least}"
    else:
        whole = entry.type in (int, int | None)
        return checked_number(f"token_reduction: {name}", value, whole=whole, low=about["low"], high=about["high"])
    if not right:
        raise ValueError(f"token_reduction: {name}={value!r}; allowed: {allowed}")
    return list(value) if takes_list(entry) else value


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


def takes_list(entry: Field) -> bool:
    """Whether an option is a list of whole numbers."""
    return entry.type in (list[int], list[int] | None)


@dataclass
class SeedOptions(Options):
    """The seed of a method that draws at random."""

    seed: int = option(0, "Seed of random choices; each sample adds its own.", low=0)
