"""Scoring that is counted in a narrow model is half of what the flop counter sees in the wide one."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmms_tokendrop import pocket_path
from lmms_tokendrop.plan.decoder_plan import prompt_of
from lmms_tokendrop.plan.narrow_model import IMAGE, WORDS, NarrowModel
from lmms_tokendrop.plan.planning import plan
from lmms_tokendrop.plan.plans import SCORING, Request
from lmms_tokendrop.plan.scoring import cls_row_macs, scored
from lmms_tokendrop.plan.targets import read_target


class WideModel(NarrowModel):
    """The target as wide as it is; only its vocabulary is the narrow model's."""

    def __init__(self, target, reduction):
        config, family = target.config(reduction), target.architecture
        config.text_config.vocab_size, config.text_config.pad_token_id = WORDS, None
        config.image_token_id = config.image_token_index = IMAGE
        self.model = family.load(family.model_class(family.heads[0]))(config).float().eval()


def seen(reducer, run) -> float:
    """Half of the FLOPs of a reducer's decisions."""
    keep, flops = reducer.keep, []

    def counted(stage, context):
        with FlopCounterMode(display=False) as counter:
            decision = keep(stage, context)
        flops.append(counter.get_total_flops())
        return decision

    reducer.keep = counted
    run()
    return sum(flops) / 2


@pytest.mark.parametrize(
    "method",
    [
        "mustdrop",
        "visionzip",
        "pyramiddrop",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("dart", "divprune", "hiprune_like")),
    ],
)
def test_decoders(method):
    target, request = read_target(str(pocket_path("llava_next", "none"))), Request(before=5, behind=9)
    reduction = {"method": method, "visual_tokens": 60}
    wide, tower = WideModel(target, reduction), []
    reducer = wide.model.model.token_reducer
    found = seen(reducer, lambda: tower.extend(wide.counts(prompt_of(target.config(), request)).tower))
    cls_row = cls_row_macs(target.config().vision_config, tower[-1]) if "cls_attention" in reducer.needs else 0
    assert scored(target, plan(target, reduction, request), request).macs[SCORING].full == found + cls_row > 0


@pytest.mark.parametrize(("name", "method"), [("vilt", "pumer"), pytest.param("meter", "tome", marks=pytest.mark.slow)])
def test_encoders(name, method):
    target, request, reduction = read_target(str(pocket_path(name, "none"))), Request(behind=8), {"method": method}
    family, config = target.architecture, target.config(reduction)
    model = family.load(f"{family.reduced}Model")(config).float().eval()
    inputs = {
        "input_ids": torch.full((1, 8), 5),
        "pixel_values": torch.randn(1, 3, config.image_size, config.image_size),
    }
    with torch.no_grad():
        found = seen(model.token_reducer, lambda: model(**inputs))
    assert scored(target, plan(target, reduction, request), request).macs[SCORING].full == found > 0


def test_trained_predictors_are_the_encoders():
    target, reduction = read_target(str(pocket_path("vilt", "none"))), {"method": "dynamicvit"}
    assert scored(target, plan(target, reduction, Request()), Request()).macs[SCORING].full == 0
