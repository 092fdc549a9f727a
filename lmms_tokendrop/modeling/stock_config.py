"""Configurations of the models without reduction, read as those of the models here."""

import os
from typing import Any


class ReadsStockConfig:
    """Makes a stored configuration of an unreduced model one of the class; comes before it in a class's bases."""

    model_type: str

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a configuration; one of a class that this one extends gets this one's type, and nothing else changes."""
        options, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        if options.get("model_type") in cls._extended():
            options = {**options, "model_type": cls.model_type}
        return options, kwargs

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
