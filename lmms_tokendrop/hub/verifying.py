"""The checks of an exported folder, one after the other, by whoever has the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedConfig

from lmms_tokendrop.catalogue import architecture, variant
from lmms_tokendrop.hub.base import Base
from lmms_tokendrop.hub.export import CHECKS, check_allowed, load_with_example
from lmms_tokendrop.hub.manifest import check_code, check_files, read_config
from lmms_tokendrop.hub.self_check import run_fresh


def folder_checks(folder: Path, check: str = "weights") -> Iterator[str]:
    """Check a folder: its files, its code, what is left of an example, and what a fresh interpreter makes of it.

    Parameters
    ----------
    folder
        Made by `lmms_tokendrop.hub.export`. Nothing is written to it.
    check
        ``"weights"``; or ``"meta"``, where weights that stay in the base's repository can't be fetched: the last check
        then compares names and shapes of parameters.

    Yields
    ------
    str
        What a check found, in a line. Raises a ValueError, an OSError or a SelfCheckError at the first that fails.
    """
    check_allowed("check", check, CHECKS)
    manifest = check_files(folder)
    yield f"files: {len(manifest.files)}, each as the record says"
    check_code(folder, manifest)
    yield f"code: that of the installed package, nothing leads out of the folder (form {manifest.form})"
    entry = variant(manifest.variant)
    kind, saved = architecture(entry.architecture), PreTrainedConfig.get_config_dict(str(folder))[0]
    base = Base(folder.name, str(folder), None, manifest.license)
    _, example = load_with_example(kind, kind.head(saved.get("architectures")), base, None, check)
    if example.outputs is not None:
        counts = zip(example.outputs["tokens"], example.outputs["full"], strict=True)
        left = ", ".join(f"{sum(layers) / len(layers):.1f} of {full}" for layers, full in counts)
        yield f"{entry.model_id}: {left} image tokens of the example in an average layer"
    run_fresh({folder: example})
    same = "parameters" if example.outputs is None else "tokens per layer and logits"
    classes = ", ".join(name for name in read_config(folder)["auto_map"])
    yield f"fresh interpreter without the package: {classes} load, with the same {same}"
