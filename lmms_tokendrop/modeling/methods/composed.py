"""Composition by stages: at each place another method decides, and the budget is that of the whole."""

from dataclasses import replace
from typing import Any

from torch import nn

from ..core.options import COMPOSABLE
from ..core.reducer import Context, Host, Keep, Stage, TokenReducer
from ..core.selection import DecoderCounts
from .composed_options import ComposedOptions, Part


class Composed(TokenReducer):
    """Asks at each place the method that the options name for it.

    A method is built once for all of its places, and its other stages do not act. What a stage carries goes to those
    behind it, whosever they are: MustDrop's key tokens, where its stage at "features" acts, stay in the decoder.

    Raises
    ------
    ValueError
        If a method has no stage at a place that it is named for.
    """

    Options: type[Any] = ComposedOptions

    def __init__(self, options: ComposedOptions, host: Host):
        super().__init__(options, host)
        reducers = {name: _built(part, host) for name, part in options.parts.items()}
        self.methods: Any = nn.ModuleDict(reducers)
        sharing = [reducers[name] for name, part in options.parts.items() if not part.alone]
        self.drop_layers = tuple(sorted({layer for reducer in sharing for layer in reducer.drop_layers}))
        for reducer in sharing:
            reducer.drop_layers = self.drop_layers
        share = max(reducer.protected_share for reducer in reducers.values())
        for reducer in reducers.values():
            reducer.protected_share = share
            self.adds |= reducer.adds
            self.proportional_attention |= reducer.proportional_attention & reducer.host.places
            self.needs |= reducer.needs if reducer.stages_at("features", "decoder") else frozenset()

    def stages(self) -> tuple[Stage, ...]:
        """Those of the methods at the places that they are named for."""
        reducers = self.methods.values()
        return tuple(stage for place in COMPOSABLE for reducer in reducers for stage in reducer.stages_at(place))

    def count(self, stage: Stage, counts: Any) -> Any:
        """What the method of the place counts."""
        name = getattr(self.options, stage.place)
        return self.methods[name].count(stage, self._counts(name, counts))

    def keep(self, stage: Stage, context: Context) -> Keep:
        """What the method of the place decides; in the decoder, what another one carried there is carried on."""
        name = getattr(self.options, stage.place)
        keep = self.methods[name].keep(stage, replace(context, counts=self._counts(name, context.counts)))
        if stage.place == "decoder" and self.options.features != name:
            keep.carry = {**context.carry, **keep.carry}
        return keep

    def _counts(self, name: str, counts: Any) -> Any:
        """What a method counts from; one that plans alone has a budget of its own."""
        part = self.options.parts[name]
        if part.alone and isinstance(counts, DecoderCounts):
            return replace(counts, options=replace(self.options, **part.budget))
        return counts


def _built(part: Part, host: Host) -> TokenReducer:
    """The reducer of a part, for its places alone."""
    reducer = part.reducer(part.options, replace(host, places=part.places))
    there = dict.fromkeys(stage.place for stage in reducer.stages())
    for place in sorted(part.places - there.keys()):
        where = ", ".join(map(repr, there)) or "no place"
        raise ValueError(f"token_reduction: {place}={part.name!r}; {part.name} has stages at {where}")
    return reducer
