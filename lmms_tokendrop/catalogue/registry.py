"""The table of entries: the package's own, those of other packages, and the variants that they make."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lmms_tokendrop.catalogue.architectures import ARCHITECTURES
from lmms_tokendrop.catalogue.entries import Architecture, Method, Variant
from lmms_tokendrop.catalogue.methods import METHODS

PLUGINS = "lmms_tokendrop.plugins"
"""Group of the entry points that add to the catalogue.

Each names a `Method`, an `Architecture`, an iterable of them, or a function without parameters that returns one of
these or registers its entries itself.
"""

Entry = Method | Architecture

_architectures: dict[str, Architecture] = {}
_methods: dict[str, Method] = {}
_plugins_are_loaded = False


def architectures() -> tuple[Architecture, ...]:
    """Every architecture, in the order in which tables show them."""
    _load_plugins()
    return tuple(_architectures.values())


def methods() -> tuple[Method, ...]:
    """Every method, in the order in which tables show them; the first leaves every token."""
    _load_plugins()
    return tuple(_methods.values())


def architecture(name: str) -> Architecture:
    """Return the architecture of a name; a ValueError lists the names if there's none."""
    return _named("architecture", name, architectures())


def method(name: str) -> Method:
    """Return the method of a name; a ValueError lists the names if there's none."""
    return _named("method", name, methods())


def variants(*, architecture: str | None = None, method: str | None = None) -> tuple[Variant, ...]:
    """Every architecture with every method that it provides the parts for.

    Parameters
    ----------
    architecture, method
        Only the variants of one of them, or of both.

    Returns
    -------
    tuple of Variant
        In the order of architectures, then of methods.

    Raises
    ------
    ValueError
        If there is none; names what there is instead.
    """
    _load_plugins()
    chosen = _product(_architectures.values(), _methods.values())
    for name, wanted in (("architecture", architecture), ("method", method)):
        there = list(dict.fromkeys(getattr(entry, name) for entry in chosen))
        if wanted is not None and wanted not in there:
            raise ValueError(f"{name}={wanted!r}; allowed: {', '.join(there)}")
        chosen = [entry for entry in chosen if wanted in (None, getattr(entry, name))]
    return tuple(chosen)


def variant(model_id: str) -> Variant:
    """Return the variant of a name; a ValueError lists the names if there's none."""
    known = {entry.model_id: entry for entry in variants()}
    if model_id not in known:
        raise ValueError(f"unknown variant {model_id!r}; registered: {', '.join(known)}")
    return known[model_id]


def register(entry: Entry) -> None:
    """Add a method or an architecture to the catalogue, behind those that are in it.

    Parameters
    ----------
    entry
        Its fields were checked when it was made.

    Raises
    ------
    ValueError
        If it is anything else, if its name is taken, or if it makes a variant whose name another one has.
    """
    if not isinstance(entry, Entry):
        raise ValueError(f"register: {entry!r} is no Method and no Architecture")
    kind, table = ("method", _methods) if isinstance(entry, Method) else ("architecture", _architectures)
    if entry.name in table:
        raise ValueError(f"register: the name of {kind} {entry.name!r} is taken")
    families = [*_architectures.values(), *([entry] if isinstance(entry, Architecture) else [])]
    reductions = [*_methods.values(), *([entry] if isinstance(entry, Method) else [])]
    names = [made.model_id for made in _product(families, reductions)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"register: {kind} {entry.name!r} makes a second variant {name!r}")
    table[entry.name] = entry


def _product(families: Iterable[Architecture], reductions: Iterable[Method]) -> list[Variant]:
    reductions = tuple(reductions)
    return [
        Variant.of(family, reduction)
        for family in families
        for reduction in reductions
        if reduction.reducer(family.provides) is not None
    ]


def _named(kind: str, name: str, entries: Iterable[Any]) -> Any:
    known = {entry.name: entry for entry in entries}
    if name not in known:
        raise ValueError(f"{kind}={name!r}; allowed: {', '.join(known)}")
    return known[name]


def _load_plugins() -> None:
    """Load every plugin once; if one is broken, none is loaded, and the next question tries again."""
    global _plugins_are_loaded
    if _plugins_are_loaded:
        return
    _plugins_are_loaded = True  # a plugin may ask the catalogue
    before = dict(_architectures), dict(_methods)
    try:
        for point in entry_points(group=PLUGINS):
            _load_plugin(point)
    except BaseException:
        _plugins_are_loaded = False
        for table, entries in zip((_architectures, _methods), before, strict=True):
            table.clear()
            table.update(entries)
        raise


def _load_plugin(point: EntryPoint) -> None:
    try:
        offered = point.load()
        if callable(offered):
            offered = offered()
        for entry in [offered] if isinstance(offered, Entry) else offered or ():
            register(entry)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"entry point {point.name} = {point.value} of {PLUGINS} is broken: {reason}") from error


for _entry in (*ARCHITECTURES, *METHODS):
    register(_entry)
