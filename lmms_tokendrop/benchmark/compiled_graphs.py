"""How many graphs `torch.compile` makes of a model, request by request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

BACKEND = "aot_eager"


@dataclass(frozen=True)
class CompiledRun:
    """What compiling a model gave for a series of requests.

    Attributes
    ----------
    graphs : tuple[int, ...]
        Graphs compiled so far, after each request.
    difference : float
        Largest absolute difference of an answer from that of the model as it is.
    """

    graphs: tuple[int, ...]
    difference: float

    @property
    def total(self) -> int:
        """Graphs of all requests."""
        return self.graphs[-1]

    @property
    def late(self) -> int:
        """Graphs compiled from the third request on: shapes that differ between two requests are dynamic by then."""
        return self.graphs[-1] - self.graphs[1]


@torch.no_grad()
def run_compiled(model: Callable, answer: Callable[..., torch.Tensor], requests: Sequence) -> CompiledRun:
    """Answer requests with a model, and with the model compiled anew.

    Parameters
    ----------
    model : nn.Module
        The model.
    answer : Callable
        From a model, compiled or not, and a request to what is compared.
    requests : Sequence
        Two at least.

    Raises
    ------
    torch._dynamo.exc.FailOnRecompileLimitHit
        If a function needs more graphs than `torch.compile` makes of one; it would run uncompiled from then on.
    """
    expected = [answer(model, request) for request in requests]
    torch._dynamo.reset()
    backend = CompileCounterWithBackend(BACKEND)
    compiled = torch.compile(model, backend=backend)
    graphs, differences = [], []
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for request, wanted in zip(requests, expected, strict=True):
            differences.append(float((answer(compiled, request) - wanted).abs().max()))
            graphs.append(backend.frame_count)
    torch._dynamo.reset()
    return CompiledRun(tuple(graphs), max(differences))


def classified(model: Callable, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of an encoder of text and image."""
    return model(**inputs).logits


def generated(model: Callable, inputs: dict[str, torch.Tensor], steps: int = 3) -> torch.Tensor:
    """Logits `[batch, 1 + steps, vocabulary]` behind a prompt padded on the left, and behind each of some tokens.

    The tokens are the prompt's last, over and over, so that no rounding leads to others.
    """
    output = model(**inputs, use_cache=True)
    logits, mask = [output.logits[:, -1]], inputs["attention_mask"]
    for _ in range(steps):
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        output = model(
            input_ids=inputs["input_ids"][:, -1:],
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            **cache_argument(cache_of(output)),
            use_cache=True,
        )
        logits.append(output.logits[:, -1])
    return torch.stack(logits, dim=1)
