"""Loading with a reduction: strictly, and from the repository of the unreduced model if a configuration names one."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    get_model_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
LOCATION = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class TokenDropLoading(PreTrainedModel):
    """Override of `PreTrainedModel.from_pretrained`; comes before the stock class in a class's bases.

    The configuration is a :class:`TokenDropConfig`. Its field `base_weights` is None, or
    `{"repo_id": "owner/name", "revision": "40 hexadecimal digits"}`, the repository and commit that hold the weights.
    Only safetensors are read from there, and no code is run. The loaded model has `base_weights = None`: it is saved
    with its own weights.
    """

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
            If an option is wrong, if the checkpoint's keys are not exactly the model's, or if `base_weights` does not
            name a Hub repository and a commit.
        """
        if isinstance(new_parameters, str):
            raise ValueError(f"new_parameters={new_parameters!r}; allowed: prefixes, such as ({new_parameters!r},)")
        if token_reduction is not None:
            kwargs["token_reduction"] = cls.config_class.reduction_class.from_dict(token_reduction)
        config = cls._configuration(pretrained_model_name_or_path, config, kwargs)
        source, base = pretrained_model_name_or_path, getattr(config, "base_weights", None)
        if base is not None:
            check_base_weights(base)
            config.base_weights = None
            source, kwargs = base["repo_id"], _from_base(kwargs, base["revision"])
        model, info = super().from_pretrained(source, *args, config=config, output_loading_info=True, **kwargs)
        if base is not None:
            # Code is looked up there, and must never be the base's.
            model.config.name_or_path = str(pretrained_model_name_or_path)
        cls._check_loaded(model, info, new_parameters)
        return (model, info) if output_loading_info else model

    @classmethod
    def _configuration(cls, name, config: Any, kwargs: dict[str, Any]) -> Any:
        """A configuration, if it is given or names `base_weights`, with options that then leave `kwargs`; or None."""
        located = {name: kwargs[name] for name in LOCATION if name in kwargs}
        if config is not None:
            config, reduction = copy.deepcopy(cls.config_class.of(config)), kwargs.pop("token_reduction", None)
            if reduction is not None:
                config.token_reduction = reduction.to_dict()
        elif cls.config_class.get_config_dict(name, **located)[0].get("base_weights") is not None:
            reduction = kwargs.pop("token_reduction", None)
            config = cls.config_class.from_pretrained(name, token_reduction=reduction, **located)
        return config

    @classmethod
    def _check_loaded(cls, model: Any, info: dict, new_parameters: Sequence[str]) -> None:
        """Fail unless a checkpoint filled exactly the model's parameters."""
        missing = {key for key in info["missing_keys"] if not key.startswith(tuple(new_parameters))}
        if any("token_reducer." in key for key in missing):
            raise ValueError(
                f"method {model.config.token_reduction['method']!r} has trained weights and this checkpoint has none "
                f"of them; to start training them, pass new_parameters=('{cls.base_model_prefix}.token_reducer.',)"
            )
        keys = {"missing_keys": missing, **{name: info[name] for name in ("unexpected_keys", "mismatched_keys")}}
        wrong = {name: sorted(map(str, found)) for name, found in keys.items() if found}
        if wrong:
            shown = "; ".join(f"{name}: {', '.join(found[:5])} ({len(found)} in all)" for name, found in wrong.items())
            raise ValueError(f"The checkpoint does not fit {cls.__name__}: {shown}")


def _from_base(kwargs: dict[str, Any], revision: str) -> dict[str, Any]:
    """Arguments for loading from a commit of the base, without those that are about the configuration's repository."""
    own = ("revision", "code_revision", "subfolder", "trust_remote_code", "use_safetensors")
    kept = {name: value for name, value in kwargs.items() if name not in own}
    if kept.get("adapter_kwargs"):
        # transformers puts this repository's commit in there.
        kept["adapter_kwargs"] = {name: value for name, value in kept["adapter_kwargs"].items() if name != "revision"}
    return {**kept, "revision": revision, "use_safetensors": True, "trust_remote_code": False}


def check_base_weights(base: dict) -> None:
    """Fail unless weights come from a commit of a Hub repository.

    Raises
    ------
    ValueError
        For a local path, a branch or a tag, or a folder that would be read in place of the repository.
    """
    if not isinstance(base, dict) or set(base) != {"repo_id", "revision"}:
        raise ValueError(f"base_weights={base!r}; allowed: a dict with 'repo_id' and 'revision'")
    if not isinstance(base["repo_id"], str) or not REPOSITORY.fullmatch(base["repo_id"]):
        raise ValueError(f"base_weights: repo_id={base['repo_id']!r}; allowed: 'owner/name' of a Hub repository")
    if not isinstance(base["revision"], str) or not COMMIT.fullmatch(base["revision"]):
        raise ValueError(f"base_weights: revision={base['revision']!r}; allowed: a commit, 40 hexadecimal digits")
    if Path(base["repo_id"]).is_dir():
        raise ValueError(f"base_weights: a local folder {base['repo_id']!r} hides the Hub repository; run elsewhere")


def read_as(stock: str, *names: str) -> None:
    """Let models, by the names of their classes or types, read checkpoints with the keys that a stock one reads."""
    for name in names:
        register_checkpoint_conversion_mapping(name, get_checkpoint_conversion_mapping(stock), overwrite=True)


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
