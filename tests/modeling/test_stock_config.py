"""Checkpoints of unreduced models load as reduced ones without a word."""

from __future__ import annotations

import json
import logging

import pytest
from transformers import LlavaConfig, LlavaNextConfig, ViltConfig

from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import (
    LlavaNextTokenDropForConditionalGeneration,
)
from lmms_tokendrop.modeling.architectures.modeling_llava_tokendrop import LlavaTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterConfig
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForQuestionAnswering
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering

CLASSES = {
    "llava_next": (LlavaNextTokenDropForConditionalGeneration, LlavaNextConfig),
    "llava": (LlavaTokenDropForConditionalGeneration, LlavaConfig),
    "vilt": (ViltTokenDropForQuestionAnswering, ViltConfig),
    "meter": (MeterTokenDropForQuestionAnswering, MeterConfig),
}


@pytest.fixture
def stock_checkpoint(tiny_checkpoint, tiny_llava_checkpoint, fusion_checkpoint):
    """Return `make(name) -> Path`: a checkpoint of an unreduced model."""
    decoders = {"llava_next": tiny_checkpoint(), "llava": tiny_llava_checkpoint}
    return lambda name: decoders[name] if name in decoders else fusion_checkpoint(name)


@pytest.fixture
def logged(caplog):
    """Return what is logged, by transformers too, whose loggers may keep it to themselves."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("name", CLASSES)
def test_loading_a_stock_checkpoint_warns_of_nothing(stock_checkpoint, name, logged):
    model_class, _ = CLASSES[name]
    model = model_class.from_pretrained(stock_checkpoint(name))
    config = model_class.config_class.from_pretrained(stock_checkpoint(name))
    assert logged.messages == []
    assert model.config.model_type == config.model_type == f"{name}_tokendrop"


@pytest.mark.parametrize("name", CLASSES)
def test_a_configuration_of_another_model_still_warns(stock_checkpoint, name, logged, tmp_path):
    model_class, stock_config = CLASSES[name]
    options = json.loads((stock_checkpoint(name) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**options, "model_type": "bert"}))
    model_class.config_class.from_pretrained(tmp_path)
    assert "model of type `bert`" in logged.text
    assert stock_config.model_type == name
