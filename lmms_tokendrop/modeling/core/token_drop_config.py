"""Configurations that name a reduction, and the flat folder of code that the Hub and `trust_remote_code` take."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import getfile
from pathlib import Path
from typing import Any, ClassVar

from .options import Options, Reductions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent if (HERE.parent / "architectures").is_dir() else HERE
"""The folder of rooms; in an exported model, which has none, the flat folder."""

IMPORT = re.compile(r"^(\s*)from (?:\.|\.\.\w+\.|lmms_tokendrop\.modeling\.\w+\.)(\w+) import", re.MULTILINE)


@dataclass(kw_only=True, eq=False, repr=False)
class TokenDropConfig:
    """A configuration that names a reduction; comes before the stock class in a class's bases.

    A stored configuration of the unreduced model is read as one of the class. The files that an `auto_map` names are
    saved beside the configuration: transformers does so for classes that its auto classes loaded, and this class for
    those that were imported, so that what was loaded from a repository with code still loads with `trust_remote_code`
    after `save_pretrained`.

    Parameters
    ----------
    token_reduction : dict, optional
        Options of `reduction_class`; None is the unreduced model.
    base_weights : dict, optional
        Hub repository and commit that hold the weights, see :class:`TokenDropLoading`; default: they are beside this.

    Attributes
    ----------
    reduction_class : Reductions
        The methods of the architecture.
    """

    __slots__ = ("_parsed",)  # neither saved nor compared, as what is in `__dict__` would be
    reduction_class: ClassVar[Reductions]
    model_type: ClassVar[str]

    token_reduction: dict | None = None
    base_weights: dict | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)  # type: ignore[misc]
        given: Any = self.token_reduction
        self._parsed = given if isinstance(given, Options) else self.reduction_class.from_dict(given)
        self.token_reduction = self._parsed.to_dict()  # type: ignore[misc]

    @classmethod
    def reduction_of(cls, config: Any) -> Any:
        """The checked options of a configuration, which may be of the stock class or of another copy of this code.

        Raises
        ------
        ValueError
            If the options were changed since the configuration was made, and one is wrong.
        """
        options, parsed = getattr(config, "token_reduction", None), getattr(config, "_parsed", None)
        if isinstance(parsed, Options) and parsed.to_dict() == options:
            return parsed
        return cls.reduction_class.from_dict(options)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a configuration; one of a class that this one extends gets this one's type, and nothing else changes.

        Options that were saved in an earlier format keep their meaning.
        """
        options, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        if options.get("model_type") in cls._extended():
            options = {**options, "model_type": cls.model_type}
        if options.get("token_reduction") is not None:
            options = {**options, "token_reduction": cls.reduction_class.restored(options["token_reduction"])}
        return options, kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Make a configuration; a given `token_reduction`, checked or not, takes the place of the stored options."""
        given = kwargs.pop("token_reduction", None)
        if given is not None:
            config_dict = {**config_dict, "token_reduction": given}
        return super().from_dict(config_dict, **kwargs)  # type: ignore[misc]

    @classmethod
    def of(cls, config: Any):
        """A configuration of the class, from one of a class that this one extends, or from a folder.

        One that has the class's model type already is returned as it is, also from another copy of this code.

        Parameters
        ----------
        config : PreTrainedConfig, str or os.PathLike
            An object, or where it is stored.

        Raises
        ------
        ValueError
            If it is of another model type.
        """
        if isinstance(config, str | os.PathLike):
            return cls.from_pretrained(config)  # type: ignore[attr-defined]
        model_type = getattr(config, "model_type", None)
        if model_type == cls.model_type:
            return config
        if model_type not in cls._extended():
            allowed = ", ".join(sorted({cls.model_type, *cls._extended()}))
            raise ValueError(f"config of type {type(config).__name__}; allowed: a configuration of {allowed}")
        return cls(**{name: value for name, value in config.to_dict().items() if name != "model_type"})

    @classmethod
    def _extended(cls) -> set[str]:
        """Model types of the classes that this one extends."""
        return {getattr(base, "model_type", None) for base in cls.__mro__[1:]} - {None, ""}

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as the stock class does, and the code. An `auto_map` of other code or of another model is left out."""
        code: dict[str, str] = {}
        if self._auto_class is None and hasattr(self, "auto_map"):  # type: ignore[attr-defined]
            code = self._code()
            if not code:
                del self.auto_map
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        for name, text in code.items():
            (Path(save_directory) / name).write_text(text)

    def _code(self: Any) -> dict[str, str]:
        """What the `auto_map` names, and needs; nothing unless it is of this code and has the saved model's class."""
        references = [str(reference).rpartition(".") for reference in dict(self.auto_map).values()]
        modules, named = {module for module, _, _ in references}, {name for _, _, name in references}
        if not modules <= sources().keys() or not named.issuperset(self.architectures or ()):
            return {}
        return code_of(self.reduction_class, modules, *self.reduction_of(self).methods)


def code_of(reductions: Reductions, modules: Iterable[str], *methods: str) -> dict[str, str]:
    """Text of every file that some modules need in a model exported with some methods; see :func:`flat_code`."""
    own = {Path(getfile(reductions.reducers[method])) for method in methods}
    return flat_code(modules, sources(sorted(own)), reductions.exported(*methods))


def sources(further: Iterable[Path] = ()) -> dict[str, Path]:
    """Every file of `ROOT`, and `further` ones, by name without ``.py``; a ValueError if two share one."""
    files: dict[str, Path] = {}
    for path in (*sorted(ROOT.rglob("*.py")), *further):
        if path.stem != "__init__" and files.setdefault(path.stem, path).resolve() != path.resolve():
            raise ValueError(f"{path}: {path.name} is also a file of lmms_tokendrop.modeling; give it another name")
    return files


def flat_code(modules: Iterable[str], files: Mapping[str, Path], instead: Mapping | None = None) -> dict[str, str]:
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
        if name not in files:
            raise FileNotFoundError(f"{name}.py is imported, and there is no such file in lmms_tokendrop.modeling")
        texts[name] = IMPORT.sub(r"\1from .\2 import", instead[name] if name in instead else files[name].read_text())
        waiting.extend({match[2] for match in IMPORT.finditer(texts[name])} - texts.keys())
    return {f"{name}.py": texts[name] for name in sorted(texts)}
