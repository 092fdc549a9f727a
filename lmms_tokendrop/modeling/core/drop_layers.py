"""After which layers of a decoder a method drops tokens: the one rule by which published layers are scaled."""

from .options import option

PAPER_DEPTH = 32


def layers_option(usual: str):
    """The option `layers`, given those of a decoder of 32."""
    return option(None, f"Decoder layers (zero-based) after which tokens are dropped; default: {usual} of 32, scaled.")


def drop_layers(layers: list[int] | None, num_layers: int, published: tuple[int, ...]) -> tuple[int, ...]:
    """The decoder layers after which tokens are dropped.

    By default those that a paper publishes for 32 layers, scaled: layer l of stage s becomes
    `max(s, (l + 1) * num_layers // 32 - 1)`; in shallow decoders those that could not act fall away.

    Parameters
    ----------
    layers : list[int] or None
        Zero-based layers, ascending; None: the default.
    num_layers : int
        Number of decoder layers.
    published : tuple[int, ...]
        The paper's layers, zero-based, of a decoder of 32.

    Returns
    -------
    tuple[int, ...]
        Zero-based layers.

    Raises
    ------
    ValueError
        If a layer is the last one or lies past it, where a drop could not act.
    """
    if layers is None:
        scaled = (max(s, (layer + 1) * num_layers // PAPER_DEPTH - 1) for s, layer in enumerate(published))
        layers = [layer for layer in scaled if layer < num_layers - 1]
    if not layers or layers[-1] >= num_layers - 1:
        raise ValueError(
            f"layers={list(layers)}: a drop after the last of {num_layers} decoder layers or past it can't act; "
            f"allowed are 0 to {num_layers - 2}"
        )
    return tuple(layers)
