"""The models that are planned for: a configuration of this package, of a file or of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_tokendrop.catalogue import Architecture, architectures
from lmms_tokendrop.json_files import read_json_object

CONFIGURATIONS = Path(__file__).with_name("configurations")
"""Configurations of public checkpoints, as far as they say how large a model is."""


@dataclass(frozen=True)
class Target:
    """A model without its weights.

    Parameters
    ----------
    name
        What was asked for.
    architecture
        In the catalogue.
    stored
        Its configuration as it is stored.
    """

    name: str
    architecture: Architecture
    stored: dict[str, Any]

    def config(self, token_reduction: dict[str, Any] | None = None) -> Any:
        """The configuration with a reduction, of the architecture's reduced class.

        Parameters
        ----------
        token_reduction
            Its options; None: the unreduced model.

        Raises
        ------
        ValueError
            If an option is wrong.
        """
        config_class = self.architecture.load(self.architecture.config_class)
        left = {"model_type", "token_reduction", "auto_map", "architectures"}
        plain = {name: value for name, value in self.stored.items() if name not in left}
        return config_class.from_dict(plain, token_reduction=token_reduction or {"method": "none"})


def shipped() -> tuple[str, ...]:
    """Names of the public configurations that are in this package."""
    return tuple(sorted(path.stem for path in CONFIGURATIONS.glob("*.json")))


def read_target(name: str) -> Target:
    """Find a configuration.

    Parameters
    ----------
    name
        One of :func:`shipped`, a configuration's file, or a folder with a ``config.json``.

    Returns
    -------
    Target
        The model. A saved reduction is left out.

    Raises
    ------
    ValueError
        If there is none, or if it is of no architecture of the catalogue.
    """
    path = CONFIGURATIONS / f"{name}.json" if name in shipped() else Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"target={name!r}; allowed: a configuration's file, a folder with one, or one of {', '.join(shipped())}"
        )
    stored = read_json_object(path)
    kind = stored.get("model_type")
    for entry in architectures():
        if kind in entry.model_types:
            return Target(name, entry, stored)
    known = ", ".join(entry.name for entry in architectures())
    raise ValueError(f"target={name!r} is a configuration of {kind}; allowed: one of {known}")
