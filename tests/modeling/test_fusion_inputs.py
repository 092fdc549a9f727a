"""Every form of ViLT's and METER's arguments that a docstring names runs; others are refused by name."""

from __future__ import annotations

import pytest
import torch
from fusion_architectures import ARCHITECTURES
from tiny_vilt import tiny_vilt_inputs
from transformers import ViltConfig

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterConfig
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import (
    ViltTokenDropForImageAndTextRetrieval,
    ViltTokenDropForImagesAndTextClassification,
    ViltTokenDropModel,
)

NAMES = tuple(ARCHITECTURES)
REDUCTIONS = ("none", "pumer", "random")
STOCK_CONFIGS = {"vilt": ViltConfig, "meter": MeterConfig}


@pytest.fixture
def load(fusion_checkpoint):
    """Return `make(name, method, images=1, **options)`: a head of one image or of two."""

    def make(name: str, method: str = "none", images: int = 1, **options):
        architecture = ARCHITECTURES[name]
        head = architecture.question_answering if images == 1 else architecture.two_images
        path = fusion_checkpoint(name, "question_answering" if images == 1 else "two_images")
        return head.from_pretrained(path, token_reduction=architecture.methods[method], **options)

    return make


def embedded(name: str, model, inputs: dict) -> dict:
    """The same inputs, each as the encoder's own features."""
    encoder, pixels = ARCHITECTURES[name].encoder(model), inputs["pixel_values"]
    several = pixels.ndim == 5
    images = pixels.unbind(1) if several else [pixels]
    text, mask = inputs["input_ids"], inputs["attention_mask"]
    if name == "meter":
        given = {"text_embeds": encoder.get_text_features(text, mask)}
        features = [{"image_embeds": encoder.get_image_features(image)} for image in images]
    else:
        given = {"inputs_embeds": model.get_input_embeddings()(text)}
        masks = inputs["pixel_mask"].unbind(1) if several else [inputs["pixel_mask"]]
        made = [encoder.embeddings.image_tokens(*pair) for pair in zip(images, masks, strict=True)]
        features = [{"image_embeds": image, "pixel_mask": valid} for image, valid, _ in made]
    for argument in features[0]:
        values = [each[argument] for each in features]
        given[argument] = torch.stack(values, dim=1) if several else values[0]
    return {"attention_mask": mask, **given}


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("method", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_equivalent_forms_give_the_same(load, name, method, images):
    model, inputs = load(name, method, images), ARCHITECTURES[name].inputs("ragged", images)
    expected = model(**inputs).logits
    forms = [
        {**inputs, "attention_mask": inputs["attention_mask"].bool()},
        {**inputs, "sample_seeds": torch.zeros(3, dtype=torch.long)},
        {**inputs, "return_dict": True},
        embedded(name, model, inputs),
    ]
    if name == "vilt":
        forms += [
            {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])},
            {**inputs, "pixel_mask": inputs["pixel_mask"].bool()},
        ]
    assert all(torch.equal(model(**form).logits, expected) for form in forms)
    assert torch.equal(model(**inputs, return_dict=False)[0], expected)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_masks_may_be_left_out_where_nothing_is_padded(load, name, images):
    model, inputs = load(name, "pumer", images), ARCHITECTURES[name].inputs("whole", images)
    bare = {argument: inputs[argument] for argument in ("input_ids", "pixel_values")}
    assert torch.equal(model(**bare).logits, model(**inputs).logits)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("method", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_is_collected_can_be_configured(load, name, method, images):
    options = {"attn_implementation": "eager", "output_attentions": True, "output_hidden_states": True}
    model, inputs = load(name, method, images, **options), ARCHITECTURES[name].inputs("ragged", images)
    asked = load(name, method, images, attn_implementation="eager")(
        **inputs, output_attentions=True, output_hidden_states=True
    )
    torch.testing.assert_close(model(**inputs).attentions, asked.attentions)
    torch.testing.assert_close(model(**inputs).hidden_states, asked.hidden_states)
    without = model(**inputs, output_attentions=False, output_hidden_states=False)
    assert without.attentions is None
    assert without.hidden_states is None


@torch.no_grad()
def test_token_types_and_the_pooler_of_vilt(tiny_vilt_checkpoint):
    model, inputs = ViltTokenDropModel.from_pretrained(tiny_vilt_checkpoint("model")), tiny_vilt_inputs()
    states = model(**inputs).last_hidden_state
    assert torch.equal(model(**inputs, image_token_type_idx=None).last_hidden_state, states)
    others = [
        {"image_token_type_idx": 0},
        {"image_token_type_idx": 2},
        {"token_type_ids": torch.ones_like(inputs["input_ids"])},
    ]
    assert all((model(**inputs, **other).last_hidden_state - states).abs().max() > 1e-2 for other in others)
    bare = ViltTokenDropModel(model.config, add_pooling_layer=False).eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    assert bare(**inputs).pooler_output is None
    assert torch.equal(bare(**inputs).last_hidden_state, states)


@torch.no_grad()
def test_one_image_needs_no_dimension_of_images(tiny_vilt_checkpoint):
    path = tiny_vilt_checkpoint("two_images", num_images=1, modality_type_vocab_size=2)
    model, inputs = ViltTokenDropForImagesAndTextClassification.from_pretrained(path), tiny_vilt_inputs()
    expected = model(**inputs).logits
    several = {name: values[:, None] if name.startswith("pixel") else values for name, values in inputs.items()}
    assert torch.equal(model(**several).logits, expected)
    image, valid, _ = model.vilt.embeddings.image_tokens(inputs["pixel_values"], inputs["pixel_mask"])
    features = {"pixel_values": None, "image_embeds": image, "pixel_mask": valid}
    assert torch.equal(model(**{**inputs, **features}).logits, expected)


@pytest.mark.parametrize("method", REDUCTIONS)
@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        (NAMES, {"input_ids": torch.ones(12)}, r"input_ids of shape \(12,\); allowed: \[batch, length\]"),
        (NAMES, {"pixel_values": torch.ones(3, 1, 3, 32, 32)}, r"pixel_values of shape .*allowed: \[batch, 3, "),
        (NAMES, {"attention_mask": torch.ones(3, 5)}, r"attention_mask of shape \(3, 5\); allowed: \(3, 12\)"),
        (NAMES, {"attention_mask": [[1] * 12] * 3}, "attention_mask of type list; allowed: a tensor of shape"),
        (NAMES, {"sample_seeds": torch.tensor([1, 2])}, r"sample_seeds of shape \(2,\); allowed: \(3,\)"),
        (NAMES, {"sample_seeds": torch.zeros(3)}, "sample_seeds of torch.float32; allowed: whole numbers"),
        (NAMES, {"sample_seeds": [0, 0, 0]}, "sample_seeds of type list; allowed: a tensor"),
        (NAMES, {"labels": torch.zeros(3)}, r"labels of shape \(3,\); allowed: \(3, 10\)"),
        (NAMES, {"labels": torch.ones(3, 10).long()}, "labels of torch.int64; allowed: floating point numbers"),
        (["meter"], {"image_token_type_idx": 3}, "image_token_type_idx=3; allowed: 0 to 2"),
        (["vilt"], {"token_type_ids": torch.zeros(3, 4)}, r"token_type_ids of shape \(3, 4\); allowed: \(3, 12\)"),
        (["vilt"], {"pixel_mask": torch.ones(3, 8, 12)}, r"pixel_mask of shape .*; allowed: \(3, 32, 48\)"),
        (["vilt"], {"pixel_mask": torch.zeros(3, 32, 48)}, "pixel_mask: images must be padded on the right and below"),
        (["vilt"], {"pixel_values": None, "image_embeds": torch.ones(3, 9, 64)}, r"pixel_mask of .*allowed: \(3, 9\)"),
    ],
)
def test_other_forms_are_refused_by_name(load, method, names, change, message):
    for name in names:
        with pytest.raises(ValueError, match=message):
            load(name, method)(**{**ARCHITECTURES[name].inputs("ragged"), **change})


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        (NAMES, {"pixel_values": None}, "exactly one of pixel_values or image_embeds"),
        (["meter"], {"pixel_values": torch.ones(3, 3, 32, 32)}, r"pixel_values of .*; allowed: \[batch, images, 3, "),
        (["meter"], {"input_ids": torch.ones(3, 60).long(), "attention_mask": None}, "max_position_embeddings=48"),
        (["vilt"], {"pixel_mask": torch.ones(3, 1, 32, 48)}, r"pixel_mask of .*; allowed: \(3, 2, ...\)"),
        (NAMES, {"labels": torch.ones(2).long()}, r"labels of shape \(2,\); allowed: \(3,\)"),
        (NAMES, {"labels": torch.ones(3)}, "labels of torch.float32; allowed: whole numbers"),
    ],
)
def test_other_forms_of_two_images_are_refused_by_name(load, names, change, message):
    for name in names:
        with pytest.raises(ValueError, match=message):
            load(name, "pumer", 2)(**{**ARCHITECTURES[name].inputs("ragged", 2), **change})


def test_features_of_whole_images_are_not_scaled_down(load):
    model, inputs = load("vilt", "smres"), tiny_vilt_inputs()
    with pytest.raises(ValueError, match="image_embeds; allowed with the option image_size: pixel_values"):
        model(**embedded("vilt", model, inputs))


@pytest.mark.parametrize("reduction", [None, {"method": "pumer"}])
@pytest.mark.parametrize("form", ["stock", "own", "folder"])
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_taken_in_every_form(fusion_checkpoint, name, form, reduction):
    path, head = fusion_checkpoint(name), ARCHITECTURES[name].question_answering
    forms = {"stock": STOCK_CONFIGS[name], "own": head.config_class}
    config = str(path) if form == "folder" else forms[form].from_pretrained(path)
    model = head.from_pretrained(path, config=config, token_reduction=reduction)
    assert type(model.config) is head.config_class
    assert model.config.token_reduction["method"] == ("none" if reduction is None else "pumer")
    assert form == "folder" or getattr(config, "token_reduction", {"method": "none"}) == {"method": "none"}


def test_llava_next_takes_a_folder_as_its_configuration(tiny_checkpoint):
    path, reduction = tiny_checkpoint(), {"method": "random", "keep_ratio": 0.5}
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(path, config=path, token_reduction=reduction)
    assert model.config.token_reduction["method"] == "random"


def test_what_loading_does_not_take_is_refused_by_name(fusion_checkpoint):
    path, head = fusion_checkpoint("vilt"), ARCHITECTURES["vilt"].question_answering
    with pytest.raises(ValueError, match="config of type MeterConfig; allowed: a configuration of vilt, vilt_token"):
        head.from_pretrained(path, config=MeterConfig.from_pretrained(fusion_checkpoint("meter")))
    with pytest.raises(ValueError, match=r"new_parameters='rank_output\.'; allowed: prefixes, such as \('rank_output"):
        ViltTokenDropForImageAndTextRetrieval.from_pretrained(path, new_parameters="rank_output.")


@pytest.mark.parametrize(("images", "argument"), [(2, "image_token_type_idx"), (1, "token_type_ids")])
def test_what_meter_does_not_have_is_refused_by_name(load, images, argument):
    with pytest.raises(TypeError, match=argument):
        load("meter", "none", images)(**ARCHITECTURES["meter"].inputs("whole", images), **{argument: 1})
