"""Every form of LLaVA-NeXT's image arguments that a docstring names runs; others are refused by name."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS, largest_difference, reducer_of
from tiny_models import tiny_config
from transformers import LlavaNextForConditionalGeneration

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration

TEXT_BLIND = [name for name, options in METHODS.items() if "questions" not in reducer_of(options).needs]
"""Methods that encode an image without what is asked about it."""


@pytest.fixture
def inputs(workshop):
    return workshop.inputs("one_image")


@pytest.mark.parametrize("method", TEXT_BLIND)
@torch.no_grad()
def test_equivalent_forms_give_the_same(workshop, inputs, method):
    model = workshop.reduced(method)
    expected = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    encoded = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    forms = (
        {**inputs, "pixel_values": inputs["pixel_values"][0]},
        {**inputs, "image_sizes": inputs["image_sizes"].tolist()},
        {**inputs, "input_ids": None, "inputs_embeds": embeds},
        {**text, "mm_encoder_outputs": {"image": encoded}},
        {**inputs, "vision_feature_layer": [-2]},
        {**inputs, "vision_feature_layer": 3, "vision_feature_select_strategy": "default"},
    )
    assert all(torch.equal(model(**form).logits, expected) for form in forms)


@pytest.mark.parametrize("method", TEXT_BLIND)
@torch.no_grad()
def test_features_of_several_layers_are_those_of_the_stock_model(workshop, inputs, method, tmp_path):
    config = tiny_config()
    config.vision_feature_layer = [-2, 1]
    LlavaNextForConditionalGeneration(config).save_pretrained(tmp_path)
    stock = LlavaNextForConditionalGeneration.from_pretrained(tmp_path).eval()
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path, token_reduction=METHODS[method])
    images = (inputs["pixel_values"], inputs["image_sizes"])
    ours, theirs = (
        model.get_image_features(*images).pooler_output[0],
        stock.get_image_features(*images).pooler_output[0],
    )
    if method in ("none", "random"):
        assert largest_difference(ours, theirs) <= 1e-5
    assert ours.shape == theirs.shape
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("method", ["none", "budget", "random"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": 5}, "vision_feature_layer=5; allowed: -5 to 4"),
        ({"vision_feature_layer": []}, "the projector of this model reads 1 layers"),
        ({"vision_feature_layer": [-2, -1]}, "the projector of this model reads 1 layers"),
        ({"vision_feature_layer": "last"}, "vision_feature_layer='last'; allowed"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy='full'; allowed: 'default'"),
        ({"image_sizes": None}, "image_sizes=None; allowed: height and width"),
        ({"image_sizes": torch.tensor([40, 60])}, "image_sizes=.*allowed: height and width"),
        ({"image_sizes": torch.tensor([[40, 60]] * 2)}, "image_sizes of 2 images; pixel_values has 1"),
        ({"sample_seeds": [1]}, r"sample_seeds=\[1\]; allowed: a tensor"),
    ],
)
def test_other_forms_are_refused_by_name(workshop, inputs, method, change, message):
    with pytest.raises(ValueError, match=message):
        workshop.reduced(method)(**{**inputs, **change})


def test_encoded_images_of_another_kind_are_refused(workshop, inputs):
    model = workshop.reduced("budget")
    images = (inputs.pop("pixel_values"), inputs.pop("image_sizes"))
    with pytest.raises(ValueError, match="must be what this model's get_image_features returned"):
        model(**inputs, mm_encoder_outputs={"image": workshop.stock().get_image_features(*images)})
    with pytest.raises(ValueError, match=r"mm_encoder_outputs with \['audio'\]; allowed: 'image'"):
        model(**inputs, mm_encoder_outputs={"audio": None})
    with pytest.raises(ValueError, match=r"images_per_request=\[3\]; allowed: numbers that add up to 1"):
        model.get_image_features(*images, images_per_request=[3])
