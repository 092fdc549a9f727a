"""Which cases of the tests are of one kind: their methods declare the same of themselves."""

from collections.abc import Iterator
from typing import Any

from cases import METHODS
from fusion_architectures import ARCHITECTURES

from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.methods.available import reductions

HOSTS = {
    "llava_next": Host(4, 32, 42, vision_layers=4),
    "vilt": Host(4, 32, 32),
    "meter": Host(4, 32, 32, vision_layers=4, in_pairs=True),
}
CASES = {"llava_next": METHODS, **{name: architecture.methods for name, architecture in ARCHITECTURES.items()}}


def kind(architecture: str, options: dict[str, Any]) -> tuple:
    """What the method of a case declares: its places, and how its tokens go on from there."""
    methods = reductions(architecture)
    reducer = methods.build(methods.from_dict(options), HOSTS[architecture])
    places = frozenset((stage.place, stage.point) for stage in reducer.stages())
    added = getattr(reducer, "adds", False)
    return places, added, reducer.joint, reducer.proportional_attention, reducer.soft_training, reducer.image_scale < 1


def repeated() -> Iterator[tuple[str, str]]:
    """Give the cases whose kind an earlier case of the architecture has."""
    for architecture, cases in CASES.items():
        kinds = set()
        for name, options in cases.items():
            if kind(architecture, options) in kinds:
                yield architecture, name
            kinds.add(kind(architecture, options))


REPEATED = frozenset(repeated())
