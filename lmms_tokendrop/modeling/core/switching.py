"""Another method or budget for a loaded model: from now on, or for the requests of one context."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .options import Options
from .reducer import TokenReducer

USED: ContextVar[Mapping[Any, TokenReducer]] = ContextVar("USED", default=MappingProxyType({}))
"""Reducers that hold in this context instead of the models' own."""


class Switchable(PreTrainedModel):
    """A model whose reducer can be another one than it was loaded with; comes before the stock class in the bases.

    Attributes
    ----------
    token_reducer : TokenReducer
        The model's own, whose parameters are the checkpoint's.
    """

    token_reducer: TokenReducer

    @property
    def used_reducer(self) -> TokenReducer:
        """The reducer of the request that runs: that of :func:`use_token_reduction`, else the model's own."""
        return USED.get().get(self, self.token_reducer)

    def build_reducer(self, options: Options) -> TokenReducer:
        """The reducer of checked options.

        Raises
        ------
        ValueError
            If a stage of the method can't act in the model.
        """
        raise NotImplementedError

    def other_reducer(self, token_reduction: dict | None) -> TokenReducer:
        """A reducer for the model's weights; raises as :func:`set_token_reduction` does."""
        reducer = self.build_reducer(self.config.reduction_class.from_dict(token_reduction))
        reducers = (self.token_reducer, reducer)
        there, own = ({name: one.shape for name, one in part.state_dict().items()} for part in reducers)
        if own != there:
            methods = [part.options.method for part in reducers]
            raise ValueError(
                f"token_reduction: the model was loaded with method {methods[0]!r}, and its parameters are not those "
                f"that method {methods[1]!r} has here (such as {min(own.items() ^ there.items())[0]!r}); load it anew"
            )
        reducer.load_state_dict(self.token_reducer.state_dict(keep_vars=True), assign=True)
        return reducer.train(self.training)


def set_token_reduction(model: nn.Module, token_reduction: dict | None) -> None:
    """Change method and budget of a loaded model for all later requests; nothing is loaded.

    Its configuration says the same from then on, and is saved with it. No request may run meanwhile: where threads
    share a model, each can have settings of its own with :func:`use_token_reduction`.

    Parameters
    ----------
    model : nn.Module
        A model of this package, with or without head, or a module that wraps one.
    token_reduction : dict or None
        Options, as `from_pretrained` takes them: what is not given has its default, whatever the model had before.

    Raises
    ------
    ValueError
        If an option is wrong, if the method can't act in the model, if it has other parameters than the model has for
        its own, such as DynamicViT's predictors, or if there is no model to switch. The model is as it was. A cache
        that was filled with other options raises when it is next used.
    """
    inner = switchable(model)
    reducer = inner.other_reducer(token_reduction)
    inner.token_reducer = reducer
    inner.config.token_reduction = reducer.options.to_dict()


@contextmanager
def use_token_reduction(model: nn.Module, token_reduction: dict | None) -> Iterator[None]:
    """Use another method and budget for the requests inside a `with`, in this thread or task alone.

    The choice is a :class:`contextvars.ContextVar`: the model and its configuration stay as they are, other threads do
    not see it, and a thread that is started inside has to choose for itself.

    Parameters
    ----------
    model, token_reduction
        As for :func:`set_token_reduction`.

    Raises
    ------
    ValueError
        As :func:`set_token_reduction` does, before anything runs.
    """
    inner = switchable(model)
    token = USED.set({**USED.get(), inner: inner.other_reducer(token_reduction)})
    try:
        yield
    finally:
        USED.reset(token)


def switchable(model: nn.Module) -> Any:
    """The part of a model that has the reducer; a ValueError if there is none."""
    found = [module for module in model.modules() if isinstance(module, Switchable)]
    if len(found) != 1:
        raise ValueError(
            f"model is a {type(model).__name__}; allowed: a model of lmms_tokendrop, loaded with its classes"
        )
    return found[0]
