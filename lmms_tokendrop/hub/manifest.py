"""The record of an export: what it was made of, the hash of every file, and whether it was checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lmms_tokendrop.catalogue import variant
from lmms_tokendrop.hub.code import check_auto_map, code_modules, model_code, split_code_keys
from lmms_tokendrop.hub.folder import CARD, MANIFEST, exported_files
from lmms_tokendrop.json_files import read_json, read_json_object
from lmms_tokendrop.modeling.methods.available import reductions


@dataclass(frozen=True)
class Manifest:
    """What an exported folder is.

    Parameters
    ----------
    package_version
        Version of `lmms_tokendrop` whose code is in the folder.
    variant
        Name of the variant for lmms-eval.
    form
        ``"config"`` (weights come from the base's repository) or ``"full"``.
    base_model, base_revision
        The base: its repository and commit. For a local folder its name, or ``"pocket"``, and None.
    bundled
        Whether the base is a model of `lmms_tokendrop.pocket`.
    license
        Licence of the base's weights; None if unknown.
    base_reduction
        Options of the method that the base holds, or the method with its defaults: what an evaluation of the base
        without options runs with. Like options in a configuration they have a format number.
    tuned
        Whether the base was trained with the method, as far as its configuration says.
    stages
        Where tokens leave.
    example_tokens
        Image tokens that the ``layers`` received of the self-check's example, per image, and ``full``, those of the
        unreduced model; None without weights.
    self_check
        ``"weights"`` after a check with weights, ``"meta"`` after one without, None before.
    files
        SHA-256 of every file but the card and this record.
    """

    package_version: str
    variant: str
    form: str
    base_model: str
    base_revision: str | None
    bundled: bool
    license: str | None
    base_reduction: dict[str, Any]
    tuned: bool
    stages: list[str]
    example_tokens: dict[str, Any] | None = None
    self_check: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's record.

        Raises
        ------
        ValueError
            If there is none, if it is broken or of another version of the package, or if the folder has what no
            exported one has, such as a link.
        """
        path = exported_files(folder).get(MANIFEST)
        if path is None:
            raise ValueError(f"{folder} has no {MANIFEST}; make the folder with lmms-tokendrop export")
        record = read_json_object(path)
        kinds = get_type_hints(cls)
        if record.keys() != kinds.keys():
            raise ValueError(f"{path} is not of this version of lmms_tokendrop; export again")
        for name, kind in kinds.items():
            if not isinstance(record[name], _json_classes(kind)):
                raise ValueError(f"{path}: {name}={record[name]!r} is not of the type {kind}; export again")
        return cls(**record)

    def write(self, folder: Path) -> None:
        """Write the record to a folder."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2) + "\n")

    def with_files(self, folder: Path) -> Manifest:
        """The same with the hashes of what the folder has."""
        return replace(self, files={name: sha256(path) for name, path in _recorded(folder).items()})

    def checked(self, how: str) -> Manifest:
        """The same after a self-check."""
        return replace(self, self_check=how)


def _json_classes(kind: Any) -> tuple[type, ...]:
    """Classes of what JSON gives for a type hint."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return tuple(get_origin(part) or part for part in parts)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``."""
    return read_json_object(folder / "config.json")


def verify(folder: Path) -> Manifest:
    """Check that a folder is what `export` wrote and the self-check saw, and that its code is the package's.

    Parameters
    ----------
    folder
        Made by `lmms_tokendrop.hub.export`.

    Returns
    -------
    Manifest
        Its record.

    Raises
    ------
    ValueError
        If a file is missing, unknown, changed, a link, of a kind that may hold code, or refers to code out of the
        folder. The card, which is made later and has no hash, is checked for its kind like the others.
    """
    manifest = check_files(folder)
    check_code(folder, manifest)
    return manifest


def check_files(folder: Path) -> Manifest:
    """The record of a folder whose files are exactly those of it; raises as :func:`verify` does."""
    manifest = Manifest.read(folder)
    names = _recorded(folder)
    for name in sorted(names.keys() ^ manifest.files.keys()):
        raise ValueError(f"{name} is {'not a file of the export' if name in names else 'missing'} in {folder}")
    for name, path in names.items():
        if sha256(path) != manifest.files[name]:
            raise ValueError(f"{name} was changed after the export; export again")
    return manifest


def check_code(folder: Path, manifest: Manifest) -> None:
    """Fail unless a folder's code is the installed package's, and all that it refers to; see :func:`verify`."""
    names = _recorded(folder)
    entry = variant(manifest.variant)
    options = reductions(entry.architecture).from_dict(read_config(folder).get("token_reduction"))
    needed = model_code(code_modules(_auto_maps(names)), entry.architecture, *options.methods)
    code = {name: path.read_text() for name, path in names.items() if name.endswith(".py")}
    for name in sorted(code.keys() | needed.keys()):
        if code.get(name) != needed.get(name):
            raise ValueError(f"{name} is not the installed package's; export again")
    if (read_config(folder).get("base_weights") is None) != (manifest.form == "full"):
        raise ValueError(f"base_weights in config.json does not fit the form {manifest.form!r}")


def _auto_maps(files: dict[str, Path]) -> list[dict[str, str]]:
    """Every ``auto_map`` in the folder's JSON files, checked to stay in the folder."""
    maps = []
    for name, path in files.items():
        if not name.endswith(".json"):
            continue
        for key, value in split_code_keys(read_json(path))[1]:
            if key != "auto_map":
                raise ValueError(f"{name} has {key}, which may lead to code elsewhere; export again")
            check_auto_map(value, set(files))
            maps.append(value)
    return maps


def _recorded(folder: Path) -> dict[str, Path]:
    """The files whose hashes the record has."""
    return {name: path for name, path in exported_files(folder).items() if name not in (MANIFEST, CARD)}
