"""Heads for several images (NLVR2): what a configuration must have, and the names of the labels."""

from __future__ import annotations

import pytest
from tiny_meter import tiny_meter_config
from tiny_vilt import tiny_vilt_config

from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForImagesAndTextClassification
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import (
    MeterTokenDropConfig,
    MeterTokenDropForImagesAndTextClassification,
)
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import (
    ViltTokenDropConfig,
    ViltTokenDropForImagesAndTextClassification,
)

HEADS = {
    "vilt": (ViltTokenDropForImagesAndTextClassification, ViltTokenDropConfig, tiny_vilt_config),
    "meter": (MeterTokenDropForImagesAndTextClassification, MeterTokenDropConfig, tiny_meter_config),
    "stock_meter": (MeterForImagesAndTextClassification, lambda **options: tiny_meter_config(**options), None),
}
UNNAMED = {"id2label": None, "label2id": None}


def build(name: str, **options):
    head, config_class, describe = HEADS[name]
    if describe is None:
        return head(config_class(**options))
    described = {key: value for key, value in describe(**options).to_dict().items() if key != "model_type"}
    return head(config_class(**described))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality_type_vocab_size": 2}, "modality_type_vocab_size=2; 2 images and a text need 3"),
        ({"num_images": 3}, "modality_type_vocab_size=3; 3 images and a text need 4"),
        ({"num_images": -1}, "num_images=-1; allowed: at least 1"),
    ],
)
def test_a_configuration_that_cannot_take_its_images_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


@pytest.mark.parametrize("name", HEADS)
def test_two_labels_without_names_are_those_of_nlvr2(name):
    assert build(name, **UNNAMED, num_labels=2).config.id2label == {0: "False", 1: "True"}
    named = {"id2label": {0: "true", 1: "false"}, "label2id": {"true": 0, "false": 1}}
    assert build(name, **named).config.id2label == named["id2label"]
    assert build(name, **UNNAMED, num_labels=3).config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
