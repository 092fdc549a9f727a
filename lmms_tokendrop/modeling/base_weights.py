"""Weights that stay in the repository of the unreduced model."""

import copy
import re
from pathlib import Path
from typing import Any

REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
LOCATION = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class BaseWeightsMixin:
    """Lets a configuration name the Hub repository and commit that hold the weights.

    The class that uses it comes before the stock class in the bases, and its configuration has a field
    `base_weights`: None, or `{"repo_id": "owner/name", "revision": "40 hexadecimal digits"}`. Only safetensors are read
    from there, and no code is run. The loaded model has `base_weights = None`: it is saved with its own weights.
    """

    config_class: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """Load as `PreTrainedModel.from_pretrained` does, with the weights of `config.base_weights` if that is set.

        Raises
        ------
        ValueError
            If `base_weights` does not name a Hub repository and a commit.
        """
        loading: Any = super()
        if config is None:
            located = {name: kwargs[name] for name in LOCATION if name in kwargs}
            options, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **located)
            if options.get("base_weights") is not None:
                changed = {name: kwargs.pop(name) for name in ("token_reduction",) if name in kwargs}
                config = cls.config_class.from_pretrained(pretrained_model_name_or_path, **located, **changed)
        base = getattr(config, "base_weights", None)
        if base is None:
            return loading.from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        check_base_weights(base)
        config = copy.deepcopy(config)
        config.base_weights = None
        for name in ("revision", "code_revision", "subfolder", "trust_remote_code", "use_safetensors"):
            kwargs.pop(name, None)
        # transformers puts this repository's commit in there.
        (kwargs.get("adapter_kwargs") or {}).pop("revision", None)
        loaded = loading.from_pretrained(
            base["repo_id"],
            *args,
            config=config,
            revision=base["revision"],
            use_safetensors=True,
            trust_remote_code=False,
            **kwargs,
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Code is looked up there, and must never be the base's.
        model.config.name_or_path = str(pretrained_model_name_or_path)
        return loaded


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
