"""The names that weights have in checkpoints."""

from transformers.conversion_mapping import get_model_conversion_mapping


def use_public_keys(model) -> None:
    """Make `model.save_pretrained` write the names that the public checkpoints of the architecture have.

    transformers writes those that it loaded, and for a model that it built anew leaves out prefixes that it would take
    away in loading, such as that of `vision_tower.vision_model.encoder`. It reads either; inference engines read the
    public ones.

    Parameters
    ----------
    model : PreTrainedModel
        Changed in place; its own parameters keep their names.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    model._weight_conversions = get_model_conversion_mapping(model, hf_quantizer=quantizer, add_legacy=False)


class SavesPublicKeys:
    """Saves with the names of public checkpoints; comes before `PreTrainedModel` in a class's bases."""

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as `PreTrainedModel.save_pretrained` does, see :func:`use_public_keys`."""
        use_public_keys(self)
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
