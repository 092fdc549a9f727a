"""The parts of a model that `torch.compile` leaves out of its graphs, and why."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def on_host(function: Function) -> Function:
    """Mark a function that runs eagerly, with all that it calls, in a compiled model.

    What a method leaves depends on values, and how much of it there is becomes a shape: such code reads numbers from
    tensors and builds new records of tokens for each request. In a graph, every one of these would be a break, or a
    guard that the next request fails.
    """
    return torch.compiler.disable(function, reason="decides by values of tensors")


def part_by_part(function: Function) -> Function:
    """Mark a function that itself runs eagerly in a compiled model; each layer or other part that it calls is compiled.

    Tokens leave inside it, so that a graph of the whole ends there. Continuing the trace would give a graph for each
    stage; a layer is compiled once for all layers, and anew only for what differs in kind.
    """
    return torch.compiler.disable(function, recursive=False, reason="tokens leave between its parts")


def compiling() -> bool:
    """Whether a compiled model runs, for a function marked `part_by_part`: it is not traced itself, but this is."""
    return torch.compiler.is_compiling()


@on_host
def of_any_length(dimension: int, *tensors: torch.Tensor | None) -> None:
    """Tell the compiled part that reads tensors that the size of a dimension depends on values: one graph takes any.

    Otherwise sizes become dynamic in a second graph, which comes with the first request that leaves another number.
    """
    for tensor in tensors:
        if tensor is not None:
            torch._dynamo.maybe_mark_dynamic(tensor, dimension)


def part_by_part_under(*decorators: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Mark a function as `part_by_part` does, with the decorators around it, outermost first, left out of graphs too.

    The wrappers that transformers' decorators make share their code among all models, and `torch.compile` makes only so
    many versions of a code.
    """

    def mark(function: Function) -> Function:
        for decorate in reversed(decorators):
            function = decorate(part_by_part(function))
        return part_by_part(function)

    return mark


class HostCall:
    """A function with its first arguments, called inside a compiled layer, of which each call runs eagerly.

    It is an object, so that the layer's graph does not depend on the function and the arguments. For gradients, it may
    run again later, when what the arguments were taken from has gone on.
    """

    def __init__(self, function: Callable, *known: Any):
        self.function, self.known = function, known

    @on_host
    def __call__(self, *computed: Any) -> Any:
        """Call the function with what the layer has computed."""
        return self.function(*self.known, *computed)
