"""What can't work raises, and names the argument; what is no mistake stays quiet."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS, REDUCING, greedy
from transformers import LlavaNextConfig

from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import (
    LlavaNextTokenDropForConditionalGeneration,
)
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

ONE_IMAGE = [("USER: <image>\nyes or no ? ASSISTANT:", [(60, 40)])]
RAGGED = [
    ("USER: <image>\nyes or no ? ASSISTANT:", [(60, 40)]),
    ("USER: " + "what colour is the square ? " * 40 + "ASSISTANT:", []),
]


def test_a_last_image_without_text_after_it_is_refused_also_behind_another_image(workshop):
    inputs = workshop.inputs([("USER: <image>\nyes or no ? <image>", [(60, 40), (40, 60)])])
    with pytest.raises(ValueError, match="the prompt must not end in an image"):
        workshop.reduced("threshold")(**inputs)


@pytest.mark.parametrize("prompt", [ONE_IMAGE, RAGGED])
def test_labels_are_refused_where_any_row_lost_tokens(workshop, prompt):
    inputs = workshop.inputs(prompt)
    with pytest.raises(ValueError, match="labels counts positions of the unreduced input"):
        workshop.reduced("budget")(**inputs, labels=inputs["input_ids"])


def test_positions_to_keep_are_refused_where_tokens_left(workshop):
    inputs = workshop.inputs(ONE_IMAGE)
    with pytest.raises(ValueError, match="logits_to_keep counts positions"):
        workshop.reduced("budget")(**inputs, logits_to_keep=torch.tensor([0]))


def test_positions_to_keep_work_where_nothing_left(workshop):
    inputs = workshop.inputs(ONE_IMAGE)
    whole = workshop.reduced("none")(**inputs).logits
    chosen = workshop.reduced("none")(**inputs, logits_to_keep=torch.tensor([3, 5])).logits
    torch.testing.assert_close(chosen, whole[:, [3, 5]])


@pytest.mark.parametrize("method", REDUCING)
def test_placeholders_without_images_are_refused(workshop, method):
    inputs = workshop.inputs(ONE_IMAGE)
    with pytest.raises(ValueError, match="there are no pixel_values to reduce"):
        workshop.reduced(method)(input_ids=inputs["input_ids"])


def test_sample_seeds_of_another_number_are_refused(workshop):
    inputs = workshop.inputs(ONE_IMAGE)
    with pytest.raises(ValueError, match=r"sample_seeds of shape \(2,\)"):
        workshop.reduced("random")(**inputs, sample_seeds=torch.tensor([1, 2]))


@pytest.mark.parametrize("layer", [-6, 5, 99])
def test_a_feature_layer_that_the_tower_lacks_is_refused(workshop, layer):
    inputs = workshop.inputs(ONE_IMAGE)
    with pytest.raises(ValueError, match="vision_feature_layer"):
        workshop.reduced("budget")(**inputs, vision_feature_layer=layer)


def test_features_with_cls_are_refused_by_a_vision_stage(workshop):
    inputs = workshop.inputs(ONE_IMAGE)
    with pytest.raises(ValueError, match="vision_feature_select_strategy='full'"):
        workshop.reduced("budget")(**inputs, vision_feature_select_strategy="full")


def test_a_shared_budget_with_too_few_images_gets_the_usual_message(workshop):
    inputs = workshop.inputs([("USER: <image>\n<image>\nyes or no ? ASSISTANT:", [(60, 40), (40, 60)])])
    one = {"pixel_values": inputs["pixel_values"][:1], "image_sizes": inputs["image_sizes"][:1]}
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        workshop.reduced({"method": "mustdrop", "visual_tokens": 60, "scope": "request"})(**{**inputs, **one})


def test_how_images_share_a_budget_follows_from_the_prompt_alone(workshop):
    model = workshop.reduced({"method": "mustdrop", "visual_tokens": 60, "scope": "request"})
    inputs = workshop.inputs("two_images")
    with torch.no_grad():
        shared, told = model(**inputs).logits, model(**inputs, images_per_request=[1, 1]).logits
    assert torch.equal(shared, told)


def test_a_stock_configuration_is_taken(workshop):
    config = LlavaNextConfig.from_pretrained(workshop.checkpoint("llama"))
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        workshop.checkpoint("llama"), config=config, token_reduction={"method": "random"}
    )
    assert model.config.token_reduction["method"] == "random"
    assert not hasattr(config, "token_reduction")


def test_layers_share_one_list_of_entries_after_compaction(workshop):
    cache = cache_of(greedy(workshop.reduced("budget"), workshop.inputs("ragged_batch"), 1))
    assert len({id(layer.entries) for layer in cache.layers}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode_floor": 3}, "need decode_interval"),
        ({"decode_drop_ratio": 0.5}, "need decode_interval"),
        ({"packing": "flat", "newlines": "keep"}, "newlines='keep' has no meaning"),
    ],
)
def test_options_that_would_do_nothing_are_refused(workshop, options, message):
    with pytest.raises(ValueError, match=message):
        workshop.reduced({**METHODS["budget"], **options})


def test_options_that_are_no_dict_are_refused(workshop):
    with pytest.raises(ValueError, match="allowed: a dict such as"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(
            workshop.checkpoint("llama"), token_reduction="mustdrop"
        )
