"""A model's code as one flat folder, which is how the Hub and `trust_remote_code` take it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent if (HERE.parent / "architectures").is_dir() else HERE
"""The folder of rooms; in an exported model, which has none, the flat folder."""

IMPORT = re.compile(r"^(\s*)from (?:\.|\.\.\w+\.|lmms_tokendrop\.modeling\.\w+\.)(\w+) import", re.MULTILINE)


def sources(further: Iterable[Path] = ()) -> dict[str, Path]:
    """Every file of `ROOT`, and `further` ones, by name without ``.py``; a ValueError if two share one."""
    files: dict[str, Path] = {}
    for path in (*sorted(ROOT.rglob("*.py")), *further):
        if path.stem != "__init__" and files.setdefault(path.stem, path).resolve() != path.resolve():
            raise ValueError(f"{path}: {path.name} is also a file of lmms_tokendrop.modeling; give it another name")
    return files


def flat_code(
    modules: Iterable[str], files: Mapping[str, Path], instead: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Text of every file that some modules need, in which imports of the package are of siblings.

    Parameters
    ----------
    modules : Iterable[str]
        Names of files, without ``.py``.
    files : Mapping[str, Path]
        What there is, see :func:`sources`.
    instead : Mapping[str, str], optional
        Texts of files that are not taken as they are.

    Returns
    -------
    dict[str, str]
        By file name.

    Raises
    ------
    FileNotFoundError
        If a file is needed that there isn't.
    """
    instead = instead or {}
    texts: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        if name not in files:
            raise FileNotFoundError(f"{name}.py is imported, and there is no such file in lmms_tokendrop.modeling")
        texts[name] = IMPORT.sub(r"\1from .\2 import", instead[name] if name in instead else files[name].read_text())
        waiting.extend(match[2] for match in IMPORT.finditer(texts[name]))
    return {f"{name}.py": texts[name] for name in sorted(texts)}
