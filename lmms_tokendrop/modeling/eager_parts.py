"""The parts of a model that `torch.compile` leaves out of its graphs, and why."""

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def on_host(function: Function) -> Function:
    """Mark a function that runs eagerly, with all that it calls, in a compiled model.

    What a method leaves depends on values, and how much of it there is becomes a shape: such code reads numbers from
    tensors and builds new records of tokens for each request. In a graph, every one of these would be a break, or a
    guard that the next request fails.
    """
    return torch.compiler.disable(function, reason="decides by values of tensors")


def layer_by_layer(function: Function) -> Function:
    """Mark a loop over layers that itself runs eagerly in a compiled model; each layer that it calls is compiled.

    Tokens leave inside the loop, so that a graph of the whole ends there. Continuing the trace of the loop would give a
    graph for each stage; a layer is compiled once for all layers, and anew only for what differs in kind.
    """
    return torch.compiler.disable(function, recursive=False, reason="tokens leave between layers")
