"""Strict loading, with a reduction, of encoders of text and image."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

from .base_weights import BaseWeightsMixin
from .fusion_reduction_config import FusionReductionConfig
from .generation import check_loaded


class TokenDropLoading(BaseWeightsMixin):
    """Override of `PreTrainedModel.from_pretrained`; comes before it in a class's bases.

    Attributes
    ----------
    reduction_class : type[FusionReductionConfig]
        The options of the architecture.
    """

    reduction_class: ClassVar[type[FusionReductionConfig]] = FusionReductionConfig
    base_model_prefix: str
    config_class: Any
    config: Any

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        config=None,
        token_reduction: dict | None = None,
        new_parameters: Sequence[str] = (),
        output_loading_info: bool = False,
        **kwargs,
    ):
        """Load a checkpoint without reduction, or one of this class.

        Parameters
        ----------
        pretrained_model_name_or_path : str or os.PathLike
            Repository or folder.
        config : PreTrainedConfig, str or os.PathLike, optional
            One of the class or of the stock model, or where it is stored; default: the checkpoint's.
        token_reduction : dict, optional
            Options of the class's reduction; default: the config's.
        new_parameters : Sequence[str]
            Prefixes of parameters that the checkpoint need not have, such as `("vilt.token_reducer.",)` to start
            training DynamicViT's predictors. They are initialised.
        output_loading_info : bool, optional
            Whether to return the loading report too.
        *args, **kwargs
            As `PreTrainedModel.from_pretrained` takes them.

        Returns
        -------
        PreTrainedModel
            The model, in eval mode; with `output_loading_info` a pair of it and a dict.

        Raises
        ------
        ValueError
            If an option is wrong, or if the checkpoint's keys are not exactly the model's.
        """
        if isinstance(new_parameters, str):
            raise ValueError(f"new_parameters={new_parameters!r}; allowed: prefixes, such as ({new_parameters!r},)")
        config = None if config is None else cls.config_class.of(config)
        if config is not None and token_reduction is not None:
            config = copy.deepcopy(config)
            config.token_reduction = cls.reduction_class.from_dict(token_reduction).to_dict()
        elif token_reduction is not None:
            kwargs["token_reduction"] = cls.reduction_class.from_dict(token_reduction).to_dict()
        loading: Any = super()
        model, info = loading.from_pretrained(
            pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
        )
        missing = {key for key in info["missing_keys"] if not key.startswith(tuple(new_parameters))}
        if any("token_reducer." in key for key in missing):
            raise ValueError(
                f"method {model.config.token_reduction['method']!r} has trained weights and this checkpoint has none "
                f"of them; to start training them, pass new_parameters=('{cls.base_model_prefix}.token_reducer.',)"
            )
        check_loaded(cls, {**info, "missing_keys": missing})
        return (model, info) if output_loading_info else model
