"""The model that a variant is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.registry import pocket_path

POCKET_LICENSE = "apache-2.0"
LICENSE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Base:
    """Where the base lies.

    Parameters
    ----------
    name
        Repository, name of a folder, or ``"pocket"``.
    source
        What `from_pretrained` reads: a folder, or a repository.
    revision
        Commit of the repository; None for a folder.
    license
        Licence of the weights; None if unknown.
    bundled
        Whether it is a model of `lmms_tokendrop.pocket`.
    """

    name: str
    source: str
    revision: str | None
    license: str | None
    bundled: bool = False

    @property
    def location(self) -> dict[str, str]:
        """Arguments of `from_pretrained` beside `source`."""
        return {} if self.revision is None else {"revision": self.revision}


def saved_reduction(config: dict[str, Any], architecture: str, method: str) -> dict[str, Any]:
    """Options that a checkpoint's configuration holds for a method, or the method with its defaults."""
    kind = reductions(architecture)
    return kind.restored(config["token_reduction"]) if tuned_with(config, method) else kind.defaults(method)


def tuned_with(config: dict[str, Any], method: str) -> bool:
    """Whether a checkpoint's configuration names a method, as it does after a fine-tune with it."""
    return (config.get("token_reduction") or {}).get("method") == method


def resolve_base(base: str, architecture: str, method: str, license: str | None = None) -> Base:
    """Find a base; a Hub repository is pinned to the commit that the Hub's API names now.

    Parameters
    ----------
    base
        ``"pocket"`` (a folder of that name is ``"./pocket"``), a folder, or a Hub repository.
    architecture, method
        Of the variant; they choose the bundled model.
    license
        Licence of the weights of a folder. A repository states its own.

    Returns
    -------
    Base
        The base.

    Raises
    ------
    ValueError
        If a repository has no safetensors, or if `license` is given for one or contradicts the bundled model's.
    huggingface_hub.errors.HfHubHTTPError
        If the Hub has no such repository.
    ConnectionError
        If the Hub does not answer.
    """
    if base == "pocket":
        if license not in (None, POCKET_LICENSE):
            raise ValueError(f"license={license!r}: that of the bundled models is {POCKET_LICENSE!r}")
        return Base(base, str(pocket_path(architecture, method)), None, POCKET_LICENSE, bundled=True)
    if license is not None and not LICENSE_NAME.fullmatch(license):
        raise ValueError(f"license={license!r}; allowed: the Hub's name of one, such as 'mit', 'llama2' or 'other'")
    if Path(base).is_dir():
        folder = Path(base).resolve()
        return Base(folder.name, str(folder), None, license)
    if license is not None:
        raise ValueError("license: a Hub repository states its own; allowed for a local folder only")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        info = HfApi().model_info(base)
    except HfHubHTTPError:
        raise
    except HTTPError as error:
        raise ConnectionError(f"no answer from the Hub about {base} ({error}); try again") from error
    if not any(sibling.rfilename.endswith(".safetensors") for sibling in info.siblings or ()):
        raise ValueError(f"{base} has no safetensors; checkpoints that have to be unpickled are refused")
    stated = None if info.card_data is None else info.card_data.license
    return Base(base, base, info.sha, stated if isinstance(stated, str) else None)
