"""Processor and model are compared when they are loaded; what a processor leaves out is the model's."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoProcessor, PreTrainedConfig

from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.evaluation.processors import load_processor
from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import FlatLlavaNextProcessor

FILE = "processor_config.json"


@pytest.fixture
def load(tiny_checkpoint, tiny_llava_checkpoint, fusion_checkpoint, tmp_path):
    """Return `load(architecture, change, **reduction)`: model and processor of a checkpoint whose file was changed."""

    def make(architecture: str = "llava_next", change=lambda options: None, **reduction):
        decoders = {"llava_next": tiny_checkpoint(), "llava": tiny_llava_checkpoint}
        source = decoders[architecture] if architecture in decoders else fusion_checkpoint(architecture)
        folder = tmp_path / architecture
        shutil.copytree(source, folder)
        options = json.loads((folder / FILE).read_text())
        change(options)
        (folder / FILE).write_text(json.dumps(options))
        method = "mustdrop" if architecture in decoders else "pumer"
        return load_model(architecture, method, LoadOptions(str(folder)), reduction, torch.device("cpu"))

    return make


def remove(*names):
    return lambda options: [options.pop(name) for name in names]


@pytest.mark.parametrize(
    "missing",
    [
        ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"),
        ("vision_feature_select_strategy",),
    ],
)
def test_what_an_older_processor_leaves_out_comes_from_the_configuration(load, missing):
    _, processor = load("llava_next", remove(*missing))
    assert processor.patch_size == 7
    assert processor.vision_feature_select_strategy == "default"
    assert processor.num_additional_image_tokens == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_additional_image_tokens": 0}, "num_additional_image_tokens=0; the model's configuration says 1"),
        ({"patch_size": 14}, "patch_size=14; the model's configuration says 7"),
        ({"vision_feature_select_strategy": "full"}, "strategy='full'; the model's configuration says 'default'"),
    ],
)
def test_a_field_that_contradicts_the_model_is_named_with_both_values(load, change, message):
    with pytest.raises(ValueError, match=message):
        load("llava_next", lambda options: options.update(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": {"height": 56, "width": 56}}, "image size=56; the model's configuration says 42"),
        ({"image_grid_pinpoints": [[42, 84]]}, r"image_grid_pinpoints=\[\[42, 84\]\]; the model's configuration says"),
    ],
)
def test_images_of_another_size_are_refused(load, change, message):
    with pytest.raises(ValueError, match=message):
        load("llava_next", lambda options: options["image_processor"].update(change))


@pytest.mark.parametrize(
    ("architecture", "change"),
    [("vilt", {"size_divisor": 6}), ("meter", {"crop_size": {"height": 30, "width": 30}})],
)
def test_encoders_refuse_images_that_are_not_whole_patches(load, architecture, change):
    with pytest.raises(ValueError, match=r"multiples of (6|30); the model's patch_size is 4"):
        load(architecture, lambda options: options["image_processor"].update(change))


@pytest.mark.parametrize("architecture", ["llava_next", "llava", "vilt", "meter"])
def test_a_larger_vocabulary_is_refused(load, architecture):
    model, _ = load(architecture)
    config = model.config.get_text_config()
    config.vocab_size = 20
    with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens; the model has 20"):
        load_processor(model.name_or_path, model.config)


def test_flat_packing_gets_the_processor_that_counts_for_it(load):
    _, processor = load("llava_next", packing="flat")
    assert type(processor) is FlatLlavaNextProcessor


@pytest.mark.parametrize("architecture", ["llava_next", "llava", "vilt", "meter"])
def test_a_saved_model_loads_with_its_processor_without_a_word(load, architecture, logged, tmp_path):
    model, processor = load(architecture)
    logged.clear()
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again = load_processor(str(tmp_path / "saved"), model.config)
    assert logged.messages == []
    assert type(again) is type(AutoProcessor.from_pretrained(model.name_or_path))
    assert type(again.tokenizer) is type(processor.tokenizer)
    assert PreTrainedConfig.get_config_dict(tmp_path / "saved")[0]["model_type"] == f"{architecture}_tokendrop"
