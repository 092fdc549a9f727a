"""Where the bundled models lie, looked up by architecture and method."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"

POCKET_MODELS: dict[tuple[str, str], str] = {
    **{("llava_next", method): "llava_next" for method in ("none", "random", "uniform", "mustdrop")},
    **{("vilt", method): "vilt" for method in ("none", "random", "cls_attention", "tome", "smres")},
    ("vilt", "pumer"): "vilt_pumer",
    ("vilt", "dynamicvit"): "vilt_dynamicvit",
    **{("meter", method): "meter" for method in ("none", "random", "cls_attention", "tome", "vision_tome", "smres")},
    ("meter", "pumer"): "meter_pumer",
}
"""Folder name in `WEIGHTS` of the bundled model for each (architecture, method)."""


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
    try:
        folder = POCKET_MODELS[(architecture, method)]
    except KeyError:
        known = ", ".join(f"{name}/{option}" for name, option in sorted(POCKET_MODELS))
        raise ValueError(
            f"no bundled model for architecture {architecture!r} with method {method!r}; bundled: {known}"
        ) from None
    return WEIGHTS / folder
