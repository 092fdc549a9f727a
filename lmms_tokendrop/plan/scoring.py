"""What a method computes to decide, in multiply-accumulates of a wide model, counted in a narrow one.

The matrix products of a method's decisions are seen as they run. Sides that are the narrow model's channels stand for
those of the wide one: the side that both matrices share, in products of states with one another or with weights; where
that is a number of tokens, the columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lmms_tokendrop.evaluation.accounting import head_dim
from lmms_tokendrop.modeling.core.reducer import TokenReducer
from lmms_tokendrop.plan.decoder_plan import prompt_of
from lmms_tokendrop.plan.encoder_plan import size_of, text_of
from lmms_tokendrop.plan.narrow_model import NarrowModel, TowerBlock, narrow_config
from lmms_tokendrop.plan.plans import SCORING, Macs, Plan, Request
from lmms_tokendrop.plan.targets import Target

HEAD_DIM = 10
"""Channels of a head of the narrow model, which has as many heads as the wide one."""

aten = torch.ops.aten
PRODUCTS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
"""Products of two matrices, or of two batches of them, and the place of the first one in their arguments."""


class Products(TorchDispatchMode):
    """Sums the multiply-accumulates of matrix products.

    Parameters
    ----------
    wide
        The configuration whose widths stand for those of the narrow model.
    """

    def __init__(self, wide: Any):
        super().__init__()
        heads = {wide.num_attention_heads, getattr(wide, "num_key_value_heads", wide.num_attention_heads), 1}
        self.channels = {count * HEAD_DIM: count * head_dim(wide) for count in heads}
        self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation, and count it if it is a product."""
        if func in PRODUCTS:
            first, second = args[PRODUCTS[func] :][:2]
            self.macs += self._product(first.shape, second.shape)
        return func(*args, **(kwargs or {}))

    def _product(self, first: torch.Size, second: torch.Size) -> int:
        *batch, rows, shared = first
        columns, width = second[-1], max(self.channels)
        if shared == width and columns in self.channels and len(second) == 2 and columns > HEAD_DIM:
            columns = self.channels[columns]  # a projection
        elif shared not in self.channels:
            columns = self.channels.get(columns, columns)
        return math.prod(batch) * rows * self.channels.get(shared, shared) * columns


def count_decisions(reducer: TokenReducer, wide: Mapping[str, Any]) -> dict[str, Products]:
    """Let a reducer's products be counted from now on.

    Parameters
    ----------
    reducer
        Of a narrow model.
    wide
        By place of :data:`PLACES`, the configuration of the wide model's layers there.

    Returns
    -------
    dict[str, Products]
        The counters, by place.
    """
    counters = {place: Products(config) for place, config in wide.items()}
    keep = reducer.keep

    def counted(stage, context):
        with counters[stage.place]:
            return keep(stage, context)

    reducer.keep = counted  # type: ignore[method-assign]
    return counters


@torch.no_grad()
def scored(target: Target, plan: Plan, request: Request) -> Plan:
    """A plan with the MACs of its method's decisions, until the prompt is read, as the part `SCORING`.

    Trained modules of encoders' methods are left out: they are counted with the encoder.

    Parameters
    ----------
    target
        The model.
    plan
        A reduced plan of the request.
    request
        What it is asked.
    """
    macs = (_of_decoder if target.architecture.generates else _of_encoder)(target, plan.given, request)
    return replace(plan, macs={**plan.macs, SCORING: Macs.of(macs)})


def _of_decoder(target: Target, reduction: Mapping[str, Any], request: Request) -> int:
    narrow, wide = NarrowModel(target, dict(reduction), head_dim=HEAD_DIM), target.config()
    reducer, vision, decoder = narrow.model.model.token_reducer, wide.vision_config, wide.text_config
    counters = count_decisions(reducer, {"vision": vision, **dict.fromkeys(("features", "decoder", "decode"), decoder)})
    tower = narrow.counts(prompt_of(wide, request)).tower
    cls_row = cls_row_macs(vision, tower[-1]) if "cls_attention" in reducer.needs else 0
    return cls_row + sum(counter.macs for counter in counters.values())


def cls_row_macs(vision: Any, block: TowerBlock) -> int:
    """MACs of the attention of the CLS query in the tower's last block, which does not run otherwise."""
    width = vision.hidden_size
    return block.tiles * (block.ffn * width * (width + 1) + width**2)


def _of_encoder(target: Target, reduction: Mapping[str, Any], request: Request) -> int:
    torch.manual_seed(0)
    family, wide = target.architecture, target.config()
    model = family.load(f"{family.reduced}Model")(narrow_config(target, dict(reduction), HEAD_DIM)).eval()
    text, size = text_of(request), size_of(target, wide, request)
    if model.token_reducer.module_macs(text, 2):
        return 0
    counters = count_decisions(model.token_reducer, {"fusion": wide, "vision": getattr(wide, "vision_config", wide)})
    ids = torch.full((1, text), 5)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(1, 3, *size))
    return sum(counter.macs for counter in counters.values())
