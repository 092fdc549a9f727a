"""Which cases of the tests are of one kind: their methods declare the same of themselves."""

from collections.abc import Iterator
from typing import Any

from cases import METHODS, reducer_of
from fusion_architectures import ARCHITECTURES

from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.methods.available import reductions

CASES = {"llava_next": METHODS, **{name: architecture.methods for name, architecture in ARCHITECTURES.items()}}


def fusion_reducer_of(architecture: str, options: dict[str, Any]) -> Any:
    """The reducer of options in an encoder of four layers."""
    methods, in_pairs = reductions(architecture), architecture == "meter"
    host = Host(4, 32, 32, vision_layers=4 * in_pairs, in_pairs=in_pairs)
    return methods.build(methods.from_dict(options), host)


def kind(architecture: str, options: dict[str, Any]) -> tuple:
    """What the method of a case declares: the places it works at, and how its tokens go on from there."""
    reducer = reducer_of(options) if architecture == "llava_next" else fusion_reducer_of(architecture, options)
    places = frozenset(stage.place for stage in reducer.stages())
    smaller = reducer.image_scale < 1
    return places, reducer.adds, reducer.joint, reducer.proportional_attention, reducer.soft_training, smaller


def repeated() -> Iterator[tuple[str, str]]:
    """Give the cases whose kind an earlier case of the architecture has."""
    for architecture, cases in CASES.items():
        kinds = set()
        for name, options in cases.items():
            if kind(architecture, options) in kinds:
                yield architecture, name
            kinds.add(kind(architecture, options))


REPEATED = frozenset(repeated())
