"""Options of a composition: methods by place, options of each, and what the budget of the whole means for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.decoder_options import (
    COUNT_BUDGETS,
    BudgetOptions,
    NewlineOptions,
    OneFormatOptions,
    PackingOptions,
    PositionOptions,
)
from ..core.options import COMPOSABLE, COMPOSED, Reductions, SeedOptions, option
from ..core.reducer import TokenReducer

DEFAULT_METHODS = {"features": "uniform", "decoder": "fastv"}
BUDGET = (*sorted(COUNT_BUDGETS), "counter")
SHARED = ("format", "scope", "newlines", "position_mode", "packing", "seed")


@dataclass
class Part:
    """A method of a composition.

    Attributes
    ----------
    name : str
        The method.
    reducer : type[TokenReducer]
        Its class.
    places : frozenset[str]
        Where it acts.
    given : dict
        Options that were given for it.
    options : Options
        All of its options.
    alone : bool
        Whether it plans as if no method came behind it.
    """

    name: str
    reducer: type[TokenReducer]
    places: frozenset[str]
    given: dict[str, Any] = field(default_factory=dict)
    options: Any = None
    alone: bool = False

    @property
    def counting_places(self) -> list[int]:
        """Numbers of places where a budget says what stays: not the cache, nor where others are only prepared."""
        if not issubclass(self.reducer.Options, BudgetOptions):
            return []
        return sorted(map(COMPOSABLE.index, self.places - {"decode", *self.reducer.builds_on.values()}))

    @property
    def own_way(self) -> list[str]:
        """What was given for it alone of a budget, or of what takes the place of one."""
        return sorted(set().union(*self.reducer.Options.alternatives) & self.given.keys())

    @property
    def budget(self) -> dict[str, Any]:
        """Its count budget; nothing where something else decides."""
        values = {name: getattr(self.options, name) for name in BUDGET}
        return {name: value for name, value in values.items() if value is not None} if stated(values) else {}

    def check_counts(self, newlines: str) -> None:
        """Raise a ValueError if it is to count newlines, or to heed a budget, and does not."""
        if self.counting_places and newlines != "drop" and "newlines" not in self.reducer.Options.entries():
            raise ValueError(f"token_reduction: newlines: {self.name} has no such option; allowed: 'drop'")
        if not self.counting_places and self.own_way:
            raise ValueError(
                f"token_reduction: {self.name}.{self.own_way[0]}: {self.name} counts no tokens at "
                f"{', '.join(sorted(self.places))}; allowed: without it"
            )

    def check_above(self, whole: dict[str, Any]) -> None:
        """Raise a ValueError if its budget is not above that of the whole."""
        for name in stated(self.budget) if whole else ():
            if name not in whole or self.budget[name] < whole[name]:
                of_whole = ", ".join(f"{other}={whole[other]}" for other in stated(whole))
                raise ValueError(
                    f"token_reduction: {self.name}.{name}={self.budget[name]} contradicts {of_whole}, the average of "
                    "the whole; allowed: the same option, and no less"
                )


@dataclass
class ComposedOptions(OneFormatOptions, SeedOptions, PackingOptions, PositionOptions, NewlineOptions, BudgetOptions):
    """Options of a composition; those of one of its methods are `METHOD.OPTION`, such as `fastv.K`.

    The budget is that of the whole, and methods that count share it. One in front of others may have a larger one of
    its own, or what takes its place: it plans as if it were alone, and others drop what is too much for the whole.

    Attributes
    ----------
    parts : dict[str, Part]
        By method, in the order of places.
    """

    vision: str | None = option(None, "Method that acts in the vision tower.")
    features: str | None = option(
        None,
        "Method that acts between tower and decoder; default: that at `decoder`, if it builds on its own stage here.",
    )
    decoder: str | None = option(None, "Method that acts in the layers of the decoder.")
    decode: str | None = option(
        None, "Method that acts in the cache. Without a method at any place: features=uniform, decoder=fastv."
    )

    def __post_init__(self) -> None:
        self.parts: dict[str, Part] = {}

    @property
    def methods(self) -> tuple[str, ...]:
        """Also those of the places."""
        return (self.method, *self.parts)

    @property
    def lowered_by(self) -> tuple[str, ...]:
        """Those of the methods that count."""
        counting = (part for part in self.parts.values() if part.counting_places)
        return tuple(f"{part.name}.{name}" for part in counting for name in part.options.lowered_by)

    @classmethod
    def merged(cls, saved: dict, given: dict) -> dict:
        """As :meth:`Options.merged`; given methods replace everything that is saved."""
        if given.keys().isdisjoint(COMPOSABLE):
            return super().merged(saved, given)
        return {**given, "method": saved["method"]}

    @classmethod
    def checked(cls, options: dict, reductions: Reductions) -> "ComposedOptions":
        """Also the options of each method.

        Raises
        ------
        ValueError
            Also for a place that two methods need, options of a method without a place, and budgets that contradict
            each other.
        """
        own = {name: value for name, value in options.items() if "." not in str(name)}
        own |= methods_by_place(own, reductions)
        whole: Any = super().checked(own, reductions)
        for name in dict.fromkeys(own[place] for place in COMPOSABLE if own[place] is not None):
            places = frozenset(place for place in COMPOSABLE if own[place] == name)
            whole.parts[name] = Part(name, reductions.reducers[name], places)
        for name in options.keys() - own.keys():
            method, _, option_of_method = name.partition(".")
            if method not in whole.parts:
                names = ", ".join(whole.parts)
                raise ValueError(f"token_reduction: {name}: {method!r} has no place; allowed: options of {names}")
            if option_of_method in ("method", "counter", *SHARED):
                raise ValueError(f"token_reduction: {name}: methods don't differ in it; allowed: {option_of_method}")
            whole.parts[method].given[option_of_method] = options[name]
        whole.share({name: own[name] for name in BUDGET if own.get(name) is not None}, reductions)
        return whole

    def share(self, budget: dict[str, Any], reductions: Reductions) -> None:
        """Complete the options of the parts, and take over the budget of the last that counts.

        Parameters
        ----------
        budget : dict
            What was given for the whole.
        reductions : Reductions
            The methods of the architecture.
        """
        for name in SHARED:
            taken = any(name in part.reducer.Options.entries() for part in self.parts.values())
            if not taken and getattr(self, name) != self.entries()[name].default:
                raise ValueError(f"token_reduction: none of {', '.join(self.parts)} has an option {name!r}")
        for part in self.parts.values():
            part.check_counts(self.newlines)
            if not part.counting_places:
                self._complete(part, {}, reductions)
        counting = [part for part in self.parts.values() if part.counting_places]
        counting.sort(key=lambda part: part.counting_places[-1])
        if counting:
            self._share_budget(counting, budget, reductions)
        elif stated(budget):
            raise ValueError(
                f"token_reduction: {stated(budget)[0]}: none of {', '.join(self.parts)} counts tokens where it acts"
            )

    def _share_budget(self, counting: list[Part], budget: dict[str, Any], reductions: Reductions) -> None:
        """The same for the parts that count, in the order in which they do."""
        *earlier, last = counting
        if last.own_way and stated(budget):
            own = ", ".join(f"{last.name}.{name}" for name in last.own_way)
            raise ValueError(f"token_reduction: {stated(budget)[0]}, {own} exclude each other; give one of them")
        if earlier and not last.own_way and not stated(budget):
            budget = {**self.usual, **budget}
        self._complete(last, budget, reductions)
        budget = last.budget
        for name in BUDGET:
            setattr(self, name, budget.get(name))
        for part in earlier:
            part.alone = bool(part.own_way)
            if not part.alone and not budget:
                raise ValueError(
                    f"token_reduction: {last.name}.{last.own_way[0]} is no budget for {part.name}; allowed: "
                    f"{part.name}.visual_tokens, {part.name}.keep_ratio, or one of the whole instead"
                )
            self._complete(part, {} if part.alone else budget, reductions)
            part.check_above(budget)

    def _complete(self, part: Part, budget: dict[str, Any], reductions: Reductions) -> None:
        """Check and fill in the options of a part."""
        shared = {name: getattr(self, name) for name in SHARED if name in part.reducer.Options.entries()}
        part.options = reductions.from_dict({"method": part.name, **shared, **budget, **part.given})

    def to_dict(self) -> dict:
        """Also the options of the methods."""
        options = super().to_dict()
        for part in self.parts.values():
            left_out = {"method", *BUDGET, *SHARED} - (COUNT_BUDGETS if part.alone else set())
            values = part.options.to_dict()
            options |= {f"{part.name}.{name}": value for name, value in values.items() if name not in left_out}
        return options


def stated(budget: Mapping[str, Any]) -> list[str]:
    """Names of the count budgets that have a value."""
    return [name for name in sorted(COUNT_BUDGETS) if budget.get(name) is not None]


def methods_by_place(options: Mapping[str, Any], reductions: Reductions) -> dict[str, str | None]:
    """The method of each place, of options of the whole.

    Raises
    ------
    ValueError
        If a place names something else, or a method builds on its own stage at a place of another one.
    """
    methods = {place: options.get(place) for place in COMPOSABLE}
    if all(name is None for name in methods.values()):
        methods |= DEFAULT_METHODS
    allowed = [name for name in reductions.reducers if name not in ("none", COMPOSED)]
    for place, name in tuple(methods.items()):
        if name is not None and name not in allowed:
            raise ValueError(f"token_reduction: {place}={name!r}; allowed: {', '.join(map(repr, allowed))}")
        builds_on = {} if name is None else reductions.reducers[name].builds_on
        if place in builds_on:
            needed = builds_on[place]
            if methods[needed] not in (None, name):
                raise ValueError(
                    f"token_reduction: {place}={name!r} builds on its own stage at {needed!r}, which is "
                    f"{methods[needed]!r}'s; allowed: {needed}={name!r}"
                )
            methods[needed] = name
    return methods
