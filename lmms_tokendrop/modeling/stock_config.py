"""Configurations of the models without reduction, read as those of the models here."""


class ReadsStockConfig:
    """Makes a stored configuration of an unreduced model one of the class; comes before it in a class's bases."""

    model_type: str

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a configuration; one of a class that this one extends gets this one's type, and nothing else changes."""
        options, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        extended = {getattr(base, "model_type", None) for base in cls.__mro__[1:]} - {None, ""}
        if options.get("model_type") in extended:
            options = {**options, "model_type": cls.model_type}
        return options, kwargs
