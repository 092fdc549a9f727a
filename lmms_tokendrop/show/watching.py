"""What a reducer decides, noted while a model runs. Decisions are those that it would have made unwatched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from lmms_tokendrop.modeling.core.applying import Keep
from lmms_tokendrop.modeling.core.reducer import Context, Stage, TokenReducer
from lmms_tokendrop.modeling.core.switching import USED, switchable


@dataclass(frozen=True)
class Decision:
    """What happened at a stage.

    Parameters
    ----------
    stage
        Where.
    tokens
        What the tokens were, as the reducer found them.
    target
        `[batch, length]`, the token that each becomes part of, itself if it stays, -1 if it leaves.
    scores
        `[batch, length]`, by what the method ranked, or the attention that it read where it ranked nothing; None if it
        did neither.
    keys
        `[batch, length]`, tokens that a method calls key tokens; None without such.
    """

    stage: Stage
    tokens: Any
    target: torch.Tensor
    scores: torch.Tensor | None
    keys: torch.Tensor | None


class Watched:
    """Stands in for a reducer and notes its decisions.

    Parameters
    ----------
    reducer
        The one that decides.
    """

    def __init__(self, reducer: TokenReducer) -> None:
        self.reducer = reducer
        self.decisions: list[Decision] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reducer, name)

    def keep(self, stage: Stage, context: Context) -> Keep:
        """The reducer's decision."""
        read: dict[str, torch.Tensor] = {}
        keep = self.reducer.keep(stage, replace(context, providers=_noting(context.providers, read)))
        if stage.place != "decode":
            scores = read.get("best", read.get("attention_rows", read.get("cls_attention")))
            keys = {**context.carry, **keep.carry}.get("key")
            self.decisions.append(Decision(stage, context.tokens, joined(keep), scores, keys))
        return keep


def _noting(providers: Mapping[str, Callable], read: dict[str, torch.Tensor]) -> dict[str, Callable]:
    """The same providers, which note what was ranked or read."""

    def best(scores: torch.Tensor, *arguments: Any, **details: Any) -> Any:
        read["best"] = scores
        return providers["best"](scores, *arguments, **details)

    def attention_rows(rows: torch.Tensor) -> torch.Tensor:
        attention = providers["attention_rows"](rows)
        read["attention_rows"] = attention.mean(1).mean(1)
        return attention

    def cls_attention() -> torch.Tensor:
        read["cls_attention"] = providers["cls_attention"]()
        return read["cls_attention"]

    noting = {"best": best, "attention_rows": attention_rows, "cls_attention": cls_attention}
    return {**providers, **{name: note for name, note in noting.items() if name in providers}}


def joined(keep: Keep) -> torch.Tensor:
    """`Keep.target`; what sums of several (`Keep.mixed`) take up is part of the one that it has most weight in."""
    if keep.mixed is None:
        return keep.target
    places, weights = keep.mixed
    most, number = weights.masked_fill((places < 0).unsqueeze(-1), 0).max(1)
    return torch.where((keep.target < 0) & (most > 0), places.gather(1, number), keep.target)


@contextmanager
def watching(model: Any) -> Iterator[list[Decision]]:
    """Note the decisions of the reducer that is used in this context; give the list that they go into."""
    inner = switchable(model)
    watched = Watched(inner.used_reducer)
    token = USED.set({**USED.get(), inner: cast("TokenReducer", watched)})
    try:
        yield watched.decisions
    finally:
        USED.reset(token)
