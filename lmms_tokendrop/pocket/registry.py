"""Where the bundled models lie, looked up by architecture and method. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from lmms_tokendrop.catalogue import variants

WEIGHTS = Path(__file__).resolve().parent / "weights"


def pocket_path(architecture: str, method: str) -> Path:
    """Find the bundled model for an architecture and a reduction method.

    Parameters
    ----------
    architecture
        Model type, such as ``"llava_next"``.
    method
        Reduction method, such as ``"mustdrop"``; ``"none"`` for the unreduced model.

    Returns
    -------
    Path
        Folder that `from_pretrained` reads.

    Raises
    ------
    ValueError
        If no model is bundled for this pair.
    """
    bundled = {(entry.architecture, entry.method): entry.pocket for entry in variants() if entry.pocket is not None}
    if (architecture, method) not in bundled:
        known = ", ".join(f"{name}/{option}" for name, option in sorted(bundled))
        raise ValueError(f"no bundled model for architecture {architecture!r} with method {method!r}; bundled: {known}")
    return WEIGHTS / bundled[architecture, method]
