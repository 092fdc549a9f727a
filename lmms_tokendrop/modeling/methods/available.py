"""The methods of each architecture, as the catalogue has them.

An exported model has a file of this name with its own methods alone, see `text_of_export`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from lmms_tokendrop import catalogue

from ..core.decoder_options import WITHOUT_NEWLINES
from ..core.options import Reductions
from ..core.reducer import TokenReducer


class CatalogueMethods(Mapping):
    """The reducers of an architecture by method, imported when they are asked for.

    Parameters
    ----------
    architecture : str
        Name in the catalogue.
    """

    def __init__(self, architecture: str):
        self.architecture = architecture

    def references(self) -> dict[str, str]:
        """``"module:Class"`` of each reducer."""
        provides = catalogue.architecture(self.architecture).provides
        references = {method.name: method.reducer(provides) for method in catalogue.methods()}
        return {name: reference for name, reference in references.items() if reference is not None}

    def __getitem__(self, method: str) -> type[TokenReducer]:
        module, name = self.references()[method].split(":")
        return getattr(import_module(module), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.references())

    def __len__(self) -> int:
        return len(self.references())


@cache
def reductions(architecture: str) -> Reductions:
    """The methods of an architecture, and what options mean for them."""
    provides = catalogue.architecture(architecture).provides
    return Reductions(
        CatalogueMethods(architecture),
        lambda *methods: {"available": text_of_export(architecture, *methods)},
        WITHOUT_NEWLINES if "decoder" in provides and "newlines" not in provides else None,
    )


def text_of_export(architecture: str, *methods: str) -> str:
    """Text of the file that takes the place of this one beside an exported model.

    Parameters
    ----------
    architecture : str
        Name in the catalogue.
    *methods : str
        The methods of the model; the unreduced one is there too.
    """
    references = CatalogueMethods(architecture).references()
    classes = {name: references[name].split(":") for name in dict.fromkeys(("none", *methods))}
    imported = {f"from .{module.rpartition('.')[2]} import {name}" for module, name in classes.values()}
    imports = "\n".join(sorted({"from .options import Reductions", *imported}))
    table = ", ".join(f'"{method}": {name}' for method, (_, name) in classes.items())
    implied = reductions(architecture).implied
    constant, argument = (f"IMPLIED = {implied!r}\n", ", implied=IMPLIED") if implied else ("", "")
    return f'''"""The methods of this model."""

{imports}

{constant}REDUCTIONS = Reductions({{{table}}}{argument})


def reductions(architecture: str) -> Reductions:
    """The methods, and what options mean for them."""
    return REDUCTIONS
'''
