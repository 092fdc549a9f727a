"""The code files of an exported folder."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lmms_tokendrop.catalogue import Architecture, Head
from lmms_tokendrop.json_files import read_json
from lmms_tokendrop.modeling.core.token_drop_config import code_of
from lmms_tokendrop.modeling.methods.available import reductions

PACKAGE = "lmms_tokendrop.modeling."
LIBRARIES = frozenset({"torch", "transformers"})
CODE_KEYS = frozenset({"auto_map", "custom_pipelines"})
"""What transformers reads the place of code from, in any configuration and at any depth of it."""

CLASS = re.compile(r"(?P<module>[A-Za-z_]\w*)\.[A-Za-z_]\w*")


def model_code(modules: Iterable[str], architecture: str, *methods: str) -> Mapping[str, str]:
    """Text of every file that some modules need in an exported folder.

    Parameters
    ----------
    modules
        Names of files of `lmms_tokendrop.modeling`, without ``.py``.
    architecture
        Of the variant.
    *methods
        Those that are there beside the unreduced model.

    Returns
    -------
    mapping of str to str
        By file name.

    Raises
    ------
    ValueError
        If a file imports anything but the standard library, torch, transformers and its siblings.
    FileNotFoundError
        If what a file imports is not there.
    """
    return checked_code(code_of(reductions(architecture), modules, *methods))


def checked_code(code: Mapping[str, str]) -> Mapping[str, str]:
    """The texts of a flat folder's files; a ValueError if one imports what :func:`model_code` does not allow."""
    for name, text in code.items():
        foreign = foreign_imports(text, {Path(sibling).stem for sibling in code})
        if foreign:
            raise ValueError(
                f"{name} imports {', '.join(foreign)}; allowed: the standard library, "
                f"{', '.join(sorted(LIBRARIES))} and siblings"
            )
    return code


def foreign_imports(text: str, siblings: Collection[str]) -> list[str]:
    """Names that code imports, anywhere in it, from elsewhere than the standard library, `LIBRARIES` and siblings.

    Parameters
    ----------
    text
        Of a module.
    siblings
        The modules of its folder.

    Returns
    -------
    list of str
        Sorted; relative ones have their dots.
    """
    allowed = LIBRARIES | sys.stdlib_module_names
    foreign: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            foreign |= {alias.name for alias in node.names if alias.name.split(".")[0] not in allowed}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            sibling = node.level == 1 and name in siblings
            library = node.level == 0 and name.split(".")[0] in allowed
            if not (sibling or library):
                foreign.add("." * node.level + name)
    return sorted(foreign)


def code_modules(auto_maps: Iterable[Mapping[str, str]]) -> set[str]:
    """Names of the files that some ``auto_map`` name."""
    return {reference.split(".")[0] for auto_map in auto_maps for reference in auto_map.values()}


def shipped_class(reference: str) -> str | None:
    """Name that a class has in an exported folder.

    Parameters
    ----------
    reference
        ``"module:Class"``.

    Returns
    -------
    str or None
        ``"file.Class"``; None if the class is another package's, which has to be installed.
    """
    module, _, name = reference.partition(":")
    return f"{module.rpartition('.')[2]}.{name}" if module.startswith(PACKAGE) else None


def model_auto_map(architecture: Architecture, head: Head) -> dict[str, str]:
    """``auto_map`` of a configuration. ``AutoModel`` gives the class with the head, as stock loaders expect.

    Raises
    ------
    ValueError
        If the architecture's code is not in `lmms_tokendrop.modeling`.
    """
    model = shipped_class(f"{architecture.module}:{architecture.model_class(head)}")
    config = shipped_class(f"{architecture.module}:{architecture.config_class}")
    if model is None or config is None:
        raise ValueError(f"architecture {architecture.name!r} can't be exported; its code is in {architecture.module}")
    task = {} if head.auto_class is None else {head.auto_class: model}
    return {"AutoConfig": config, "AutoModel": model, **task}


def split_code_keys(value: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Take the keys of `CODE_KEYS` out of a JSON value, at any depth.

    Parameters
    ----------
    value
        What `json.loads` returned. A number under such a key is left: it is a token's, in a vocabulary.

    Returns
    -------
    tuple of Any and list of (str, Any)
        The value without them, and each of them with what it had.
    """
    found: list[tuple[str, Any]] = []

    def clean(part: Any) -> Any:
        if isinstance(part, list):
            return [clean(item) for item in part]
        if not isinstance(part, dict):
            return part
        taken = {key for key, item in part.items() if key in CODE_KEYS and not isinstance(item, int | float)}
        found.extend((key, part[key]) for key in sorted(taken))
        return {key: clean(item) for key, item in part.items() if key not in taken}

    return clean(value), found


def set_auto_maps(folder: Path, auto_maps: dict[str, dict[str, str]]) -> None:
    """Take every reference to code out of a folder's JSON files, then write those that are wanted.

    Parameters
    ----------
    folder
        Where the files are.
    auto_maps
        ``auto_map`` of each file that gets one.
    """
    for path in sorted(folder.glob("*.json")):
        options, found = split_code_keys(read_json(path))
        if path.name in auto_maps:
            options["auto_map"] = auto_maps[path.name]
        if found or path.name in auto_maps:
            path.write_text(json.dumps(options, indent=2, ensure_ascii=False) + "\n")


def check_auto_map(auto_map: Any, files: set[str]) -> None:
    """Fail unless every class is in a file of the same folder.

    Parameters
    ----------
    auto_map
        As in a configuration.
    files
        Names of the folder's files.

    Raises
    ------
    ValueError
        For a reference to another repository, another folder, or a file that isn't there.
    """
    items = auto_map.items() if isinstance(auto_map, dict) else [("?", auto_map)]
    for auto_class, reference in items:
        match = CLASS.fullmatch(reference) if isinstance(reference, str) else None
        if match is None or f"{match['module']}.py" not in files:
            raise ValueError(
                f"auto_map: {auto_class}={reference!r}; allowed: module.Class, with the module's file in the folder"
            )
