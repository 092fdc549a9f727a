"""The unreduced model that a variant is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_tokendrop.pocket.registry import pocket_path

POCKET_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class Base:
    """Where the unreduced model lies.

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
    """

    name: str
    source: str
    revision: str | None
    license: str | None

    @property
    def location(self) -> dict[str, str]:
        """Arguments of `from_pretrained` beside `source`."""
        return {} if self.revision is None else {"revision": self.revision}


def saved_reduction(config: dict[str, Any], method: str) -> dict[str, Any]:
    """Options that a checkpoint's configuration holds for a method, or the method alone."""
    saved = config.get("token_reduction") or {}
    return {"method": method, **(saved if saved.get("method") == method else {})}


def resolve_base(base: str, architecture: str, method: str, license: str | None = None) -> Base:
    """Find a base; a Hub repository is pinned to the commit that the Hub's API names now.

    Parameters
    ----------
    base
        ``"pocket"``, a folder, or a Hub repository.
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
        If the Hub does not answer or has no such repository.
    """
    if base == "pocket":
        if license not in (None, POCKET_LICENSE):
            raise ValueError(f"license={license!r}: that of the bundled models is {POCKET_LICENSE!r}")
        return Base(base, str(pocket_path(architecture, method)), None, POCKET_LICENSE)
    if Path(base).is_dir():
        folder = Path(base).resolve()
        return Base(folder.name, str(folder), None, license)
    if license is not None:
        raise ValueError("license: a Hub repository states its own; allowed for a local folder only")
    from huggingface_hub import HfApi

    info = HfApi().model_info(base)
    if not any(sibling.rfilename.endswith(".safetensors") for sibling in info.siblings or ()):
        raise ValueError(f"{base} has no safetensors; checkpoints that have to be unpickled are refused")
    stated = None if info.card_data is None else info.card_data.license
    return Base(base, base, info.sha, stated)
