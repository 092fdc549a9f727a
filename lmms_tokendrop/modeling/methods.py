"""The methods of each architecture, as the catalogue has them.

An exported model has a file of this name with its own method alone.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from lmms_tokendrop import catalogue

from .options import Reductions
from .reducer import TokenReducer


class CatalogueMethods(Mapping):
    """The reducers of an architecture by method, imported when they are asked for.

    Parameters
    ----------
    architecture : str
        Name in the catalogue.
    """

    def __init__(self, architecture: str):
        self.architecture = architecture

    def _references(self) -> dict[str, str]:
        provides = catalogue.architecture(self.architecture).provides
        references = {method.name: method.reducer(provides) for method in catalogue.methods()}
        return {name: reference for name, reference in references.items() if reference is not None}

    def __getitem__(self, method: str) -> type[TokenReducer]:
        module, name = self._references()[method].split(":")
        return getattr(import_module(module), name)

    def __contains__(self, method: object) -> bool:
        return method in self._references()

    def __iter__(self) -> Iterator[str]:
        return iter(self._references())

    def __len__(self) -> int:
        return len(self._references())


@cache
def reductions(architecture: str) -> Reductions:
    """The methods of an architecture, and what options mean for them."""
    return Reductions(CatalogueMethods(architecture))
