"""Loading, saving, keys, configuration, errors of the model class."""

from __future__ import annotations

import copy
import inspect
import json
import shutil

import pytest
import torch
from cases import METHODS, greedy, largest_difference, stacked_logits
from safetensors.torch import load_file, save_file
from tiny_models import TEXT_BACKBONES, tiny_config
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, SiglipVisionConfig

from lmms_tokendrop import (
    LlavaNextTokenDropConfig,
    LlavaNextTokenDropForConditionalGeneration,
    LlavaNextTokenDropModel,
    TokenReductionConfig,
)
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

BUDGET = METHODS["budget"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_state_dict_keys_and_values_are_stock(workshop, text, method):
    stock, ours = workshop.stock(text).state_dict(), workshop.reduced(method, text).state_dict()
    assert list(stock) == list(ours)
    assert all(torch.equal(stock[key], ours[key]) for key in stock)


def test_a_saved_model_loads_with_its_reduction_and_gives_the_same(workshop, tmp_path):
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    model.save_pretrained(tmp_path)
    again = LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.token_reduction == model.config.token_reduction
    assert TokenReductionConfig.from_dict(again.config.token_reduction).keep_ratio == BUDGET["keep_ratio"]
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(stacked_logits(greedy(again, inputs)), stacked_logits(greedy(model, inputs)))


@pytest.mark.parametrize("method", ["none", "budget"])
@pytest.mark.parametrize("public", [False, True])
def test_a_saved_model_has_the_public_keys_whichever_it_was_loaded_from(workshop, tmp_path, public, method):
    stock = load_file(workshop.checkpoint() / "model.safetensors")
    expected = {public_key(key): value for key, value in stock.items()}
    assert {"language_model.lm_head.weight", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"} < set(expected)
    folder = altered_checkpoint(workshop, tmp_path, to_public_keys) if public else workshop.checkpoint()
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(folder, token_reduction=METHODS[method])
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], value) for key, value in expected.items())


def test_a_model_made_anew_has_the_public_keys_in_every_shard(workshop, tmp_path):
    model = LlavaNextTokenDropForConditionalGeneration(workshop.reduced("budget").config)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == {public_key(key) for key in load_file(workshop.checkpoint() / "model.safetensors")}
    assert len(set(index.values())) > 1


def test_the_stock_class_loads_a_saved_model(workshop, tmp_path):
    workshop.reduced("budget").save_pretrained(tmp_path)
    model, info = LlavaNextForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inputs = workshop.inputs("one_image")
    torch.testing.assert_close(model(**inputs).logits, workshop.stock()(**inputs).logits)


def test_the_forward_pass_has_the_arguments_of_the_stock_class_and_its_own():
    """`generate` and `Trainer` read them off the signature."""
    stock, ours = (
        set(inspect.signature(model_class.forward).parameters)
        for model_class in (LlavaNextForConditionalGeneration, LlavaNextTokenDropForConditionalGeneration)
    )
    assert ours == stock | {"prompt_length", "sample_seeds"}


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_base_model_names_the_tokens_that_are_left(workshop, use_cache):
    inputs = workshop.inputs("ragged_batch")
    output = workshop.reduced("random").model(**inputs, use_cache=use_cache)
    assert output.index.shape == output.last_hidden_state.shape[:2]
    kept = [set(row[row >= 0].tolist()) for row in output.index]
    text = [set((row != 4).nonzero().flatten().tolist()) for row in inputs["input_ids"]]
    real = [set(row.nonzero().flatten().tolist()) for row in inputs["attention_mask"]]
    assert all((words & there) < left < there for words, there, left in zip(text, real, kept, strict=True))


@pytest.mark.parametrize("given", [None, {"method": "random", "keep_ratio": 0.5}])
def test_loading_checks_options_once(workshop, tmp_path, monkeypatch, given):
    workshop.reduced("budget").save_pretrained(tmp_path)
    checked, check = [], TokenReductionConfig.from_dict
    monkeypatch.setattr(TokenReductionConfig, "from_dict", lambda options: checked.append(options) or check(options))
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path, token_reduction=given)
    # Transformers 5.19 makes a default configuration, too, which has no options.
    assert len([options for options in checked if options is not None]) == 1
    assert model.model.token_reducer.options == check(given or BUDGET)


def test_options_that_change_in_a_configuration_are_those_of_the_model_built_from_it(workshop):
    config = LlavaNextTokenDropConfig.from_pretrained(workshop.checkpoint(), token_reduction=BUDGET)
    config.token_reduction = {"method": "random", "seed": 3}
    assert LlavaNextTokenDropForConditionalGeneration(config).model.token_reducer.options.seed == 3
    config.token_reduction["seed"] = 4
    assert LlavaNextTokenDropForConditionalGeneration(config).model.token_reducer.options.seed == 4


def test_what_a_configuration_keeps_for_its_model_is_neither_saved_nor_compared(workshop):
    one, other = (
        LlavaNextTokenDropConfig.from_pretrained(workshop.checkpoint(), token_reduction=options)
        for options in (BUDGET, {"method": "random"})
    )
    assert one != other
    other.token_reduction = one.token_reduction
    assert one == other == copy.deepcopy(one)
    assert one.to_dict() == other.to_dict()
    assert "_parsed" not in one.to_json_string()


def test_the_configuration_names_its_own_type(workshop, tmp_path):
    model = workshop.reduced("budget")
    assert type(model.config) is LlavaNextTokenDropConfig
    assert type(model.config).model_type == "llava_next_tokendrop"
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "llava_next_tokendrop"
    assert written["token_reduction"]["method"] == "mustdrop"
    assert LlavaNextTokenDropConfig.from_pretrained(tmp_path).token_reduction == model.config.token_reduction


def test_the_stock_configuration_keeps_its_type():
    assert LlavaNextConfig.model_type == "llava_next"


def test_options_given_at_loading_replace_those_of_the_configuration(workshop, tmp_path):
    workshop.reduced("budget").save_pretrained(tmp_path)
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path, token_reduction={"method": "none"})
    assert model.config.token_reduction == {"method": "none"}


def test_a_configuration_and_options_may_be_given_together(workshop):
    config = LlavaNextTokenDropConfig.from_pretrained(workshop.checkpoint())
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        workshop.checkpoint(), config=config, token_reduction=BUDGET
    )
    assert model.config.token_reduction["keep_ratio"] == BUDGET["keep_ratio"]
    assert config.token_reduction == {"method": "none"}


def test_without_options_nothing_is_reduced(workshop):
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(workshop.checkpoint())
    assert model.config.token_reduction == {"method": "none"}
    assert not model.training


def altered_checkpoint(workshop, tmp_path, change, text="llama"):
    folder = tmp_path / "altered"
    shutil.copytree(workshop.checkpoint(text), folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def public_key(key: str) -> str:
    """The name that a weight has in the checkpoints on the Hub, given the one that a tiny checkpoint has."""
    return key.replace("vision_tower.", "vision_tower.vision_model.", 1)


def to_public_keys(weights) -> None:
    for key in [key for key in weights if key.startswith("vision_tower.")]:
        weights[public_key(key)] = weights.pop(key)


@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_the_hub_s_key_layout_loads_whole(workshop, tmp_path, text):
    folder = altered_checkpoint(workshop, tmp_path, to_public_keys, text)
    model, info = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        folder, token_reduction=BUDGET, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    expected = workshop.stock(text).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_a_missing_key_is_an_error(workshop, tmp_path):
    folder = altered_checkpoint(workshop, tmp_path, lambda weights: weights.pop("image_newline"))
    with pytest.raises(ValueError, match=r"missing_keys.*image_newline"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(folder)


def test_an_unexpected_key_is_an_error(workshop, tmp_path):
    folder = altered_checkpoint(workshop, tmp_path, lambda weights: weights.update(surprise=torch.ones(2)))
    with pytest.raises(ValueError, match=r"unexpected_keys.*surprise"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(folder)


def test_a_wrong_option_is_an_error_before_loading():
    with pytest.raises(ValueError, match="keep_ratio=2"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(
            "does-not-exist", token_reduction={"method": "mustdrop", "keep_ratio": 2}
        )


def test_a_layer_past_the_last_is_an_error_at_loading(workshop):
    with pytest.raises(ValueError, match=r"layers=\[2, 6\].*0 to 2"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(
            workshop.checkpoint(), token_reduction={"method": "mustdrop", "layers": [2, 6]}
        )


def test_a_tower_without_cls_token_is_an_error():
    config = LlavaNextTokenDropConfig(**tiny_config().to_dict() | {"token_reduction": BUDGET})
    config.vision_config = SiglipVisionConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(ValueError, match=r"mustdrop.*clip_vision_model.*siglip_vision_model"):
        LlavaNextTokenDropModel(config)


def test_the_full_feature_strategy_is_an_error_for_a_vision_stage():
    config = LlavaNextTokenDropConfig(**tiny_config().to_dict() | {"token_reduction": BUDGET})
    config.vision_feature_select_strategy = "full"
    with pytest.raises(ValueError, match="vision_feature_select_strategy"):
        LlavaNextTokenDropModel(config)


def test_a_text_model_without_staged_decoder_is_an_error():
    config = LlavaNextTokenDropConfig(text_config={"model_type": "gpt2"})
    with pytest.raises(ValueError, match=r"text_config.model_type='gpt2'.*llama"):
        LlavaNextTokenDropModel(config)


def test_images_that_do_not_match_the_placeholders_are_an_error(workshop):
    inputs = workshop.inputs("one_image")
    with pytest.raises(ValueError, match="do not match"):
        workshop.reduced("budget")(**{**inputs, "input_ids": inputs["input_ids"][:, 4:], "attention_mask": None})


def test_neither_ids_nor_embeddings_is_an_error(workshop):
    with pytest.raises(ValueError, match="exactly one"):
        workshop.reduced("budget")()


@torch.no_grad()
def test_logits_to_keep_and_tuples_work_as_in_stock(workshop):
    inputs = workshop.inputs("one_image")
    model = workshop.reduced("budget")
    whole = model(**inputs).logits
    assert largest_difference(model(**inputs, logits_to_keep=1).logits, whole[:, -1:]) <= 1e-6
    assert torch.equal(model(**inputs, return_dict=False)[0], whole)


@torch.no_grad()
def test_hidden_states_are_recorded(workshop):
    inputs = workshop.inputs("one_image")
    states = workshop.reduced("none")(**inputs, output_hidden_states=True).hidden_states
    expected = workshop.stock()(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == len(expected) == 5
    assert all(torch.equal(ours, stock) for ours, stock in zip(states, expected, strict=True))


def test_the_empty_model_needs_no_memory(workshop):
    with torch.device("meta"):
        config = LlavaNextTokenDropConfig.from_pretrained(workshop.checkpoint())
        model = LlavaNextTokenDropForConditionalGeneration(config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(workshop, dtype):
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        workshop.checkpoint(), token_reduction=BUDGET, dtype=dtype
    )
    output = greedy(model, workshop.inputs("ragged_batch"))
    assert bool(stacked_logits(output).isfinite().all())
    report = cache_of(output).report()
    assert report.kv_bytes == sum(report.kv_lengths) * 2 * 4 * 8 * 2 * 2
