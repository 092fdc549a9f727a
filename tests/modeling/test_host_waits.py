"""How often the host has to wait for a device: it reads a value, or makes a tensor whose shape depends on values."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS
from torch.utils._python_dispatch import TorchDispatchMode

from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

READING = {
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
}
OPTIONS = {
    "none": METHODS["none"],
    "random": {"method": "random", "keep_ratio": 0.3},
    "fastv": {"method": "fastv", "K": 2, "R": 0.6},
    "mustdrop": {"method": "mustdrop", "keep_ratio": 0.45, "merge_threshold": 0.6, "layers": [1, 2]},
}


class Waits(TorchDispatchMode):
    """Counts what makes the host wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count, listed = 0, torch.Tensor.tolist

        def tolist(tensor: torch.Tensor):
            self.count += 1
            return listed(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", tolist)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function._schema.name
        by_mask = name.startswith("aten::index") and any(
            place is not None and place.dtype == torch.bool
            for place in (arguments[1] if isinstance(arguments[1], list | tuple) else ())
        )
        self.count += name in READING or by_mask
        return function(*arguments, **(options or {}))


@torch.inference_mode()
def waits(model, inputs, monkeypatch) -> tuple[int, int]:
    """In a prefill, and in a step after it."""
    with Waits(monkeypatch) as prefill:
        output = model(**inputs, use_cache=True)
    token = output.logits[:, -1:].argmax(-1)
    with Waits(monkeypatch) as step:
        model(input_ids=token, use_cache=True, **cache_argument(cache_of(output)))
    return prefill.count, step.count


@pytest.mark.parametrize("method", OPTIONS)
def test_a_deeper_decoder_does_not_make_the_host_wait_more_often_and_a_step_never_does(workshop, monkeypatch, method):
    counts = []
    for layers in (4, 8):
        model = workshop.reduced(OPTIONS[method], layers=layers)
        counts.append(waits(model, workshop.inputs("one_image"), monkeypatch))
    assert counts[0] == counts[1]
    assert counts[0][1] == 0


def test_the_waits_of_a_prefill_are_counted(workshop, monkeypatch):
    inputs = workshop.inputs("one_image")
    none, random = (waits(workshop.reduced(OPTIONS[name]), inputs, monkeypatch)[0] for name in ("none", "random"))
    assert 0 < none < random
