"""What the reducers of encoders of text and image share: layers, shares of counts, pruning by score."""

import torch

from .fusion_stages import FusionContext
from .fusion_tokens import FusionTokens
from .token_matching import ranks

PAPER_DEPTH = 12


def fusion_layers(
    layers: list[int] | None, num_layers: int, default: tuple[int, ...], depth: int = PAPER_DEPTH
) -> tuple[int, ...]:
    """The blocks in which a method acts.

    Parameters
    ----------
    layers : list[int] or None
        Zero-based, ascending; None: the default, scaled.
    num_layers : int
        Blocks of the encoder.
    default : tuple[int, ...]
        Zero-based blocks of `depth`. Block l of stage s becomes `max(s, (l + 1) * num_layers // depth - 1)`.
    depth : int
        Blocks of the encoder that the default is for.

    Raises
    ------
    ValueError
        If a block lies past the last one, where it could not act.
    """
    if layers is None:
        scaled = (max(s, (layer + 1) * num_layers // depth - 1) for s, layer in enumerate(default))
        layers = [layer for layer in scaled if layer < num_layers]
    if layers[-1] >= num_layers:
        raise ValueError(
            f"layers={list(layers)}: layer {layers[-1]} can't act in an encoder of {num_layers} layers; "
            f"allowed are 0 to {num_layers - 1}"
        )
    return tuple(layers)


def share(counts: torch.Tensor, ratio: float) -> torch.Tensor:
    """`round(ratio * count)` of `counts [batch]`, halves to even."""
    return torch.round(ratio * counts.double()).long()


def pruned_image(tokens: FusionTokens, scores: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mark the tokens that stay where each row keeps its best image tokens; the image's CLS always stays.

    Parameters
    ----------
    tokens : FusionTokens
        The tokens.
    scores : torch.Tensor
        `[batch, length]`, read at image tokens.
    kept : torch.LongTensor
        `[batch]`, image tokens that stay, the CLS included.

    Returns
    -------
    torch.BoolTensor
        `[batch, length]`; padding does not stay.
    """
    return tokens.text | (tokens.image & (ranks(image_priority(tokens, scores)) < kept.unsqueeze(-1)))


def image_priority(tokens: FusionTokens, scores: torch.Tensor, protect: bool = True) -> torch.Tensor:
    """Scores with everything that is not of the image below all and, to `protect` it, the image's CLS above all."""
    scores = scores.masked_fill(~tokens.image, float("-inf"))
    return scores.masked_fill(tokens.image_cls & tokens.image, float("inf")) if protect else scores


def staying_target(stays: torch.Tensor) -> torch.Tensor:
    """Target `[batch, length]` of a decision that merges nothing: itself where a token stays, else -1."""
    return torch.arange(stays.shape[1], device=stays.device).expand_as(stays).masked_fill(~stays, -1)


def text_scores(context: FusionContext, kind: str) -> torch.Tensor:
    """How much the text looks at each token (PuMer, text-informed pruning).

    Parameters
    ----------
    context : FusionContext
        The stage.
    kind : {"attention", "first_head", "keys", "queries"}
        Post-softmax attention of the text's rows, averaged over heads or of head 0; or the product of the text's
        head-mean keys (queries) with the head-mean keys, without a softmax.

    Returns
    -------
    torch.Tensor
        `[batch, length]` float32, the mean over the text's tokens; padding has no vote.
    """
    text = context.tokens.text
    count = text.sum(-1, keepdim=True)
    if kind in ("attention", "first_head"):
        rows = context.attention_rows(text)
        return (rows.mean(1) if kind == "attention" else rows[:, 0]).sum(1) / count
    voters = (context.keys() if kind == "keys" else context.queries()).float()
    mean = (voters * text.unsqueeze(-1)).sum(1, keepdim=True) / count.unsqueeze(-1)
    return (mean @ context.keys().float().transpose(1, 2))[:, 0]
