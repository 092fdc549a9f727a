"""METER is RoBERTa, CLIP and BridgeTower's cross layers, put together as METER does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sizes import one_fast
from tiny_meter import (
    METER_HEADS,
    random_meter,
    row_of_meter,
    tiny_meter_config,
    tiny_meter_inputs,
    tiny_meter_processor,
)
from tiny_models import tiny_image
from transformers import AutoProcessor, BridgeTowerTextConfig, CLIPVisionModel, RobertaModel, Trainer, TrainingArguments
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer, BridgeTowerPooler

from lmms_tokendrop.modeling.architectures.meter_layers import MeterVisionModel
from lmms_tokendrop.modeling.architectures.modeling_meter import (
    MeterConfig,
    MeterForImagesAndTextClassification,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
)
from lmms_tokendrop.modeling.architectures.processing_meter import meter_processor

ATTENTIONS = one_fast(("sdpa", "eager"))
CLIP_NAMES = {
    "pre_layernorm.": "pre_layrnorm.",
    "layers.": "encoder.layers.",
}


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


def stock_clip(tower: MeterVisionModel) -> CLIPVisionModel:
    stock = CLIPVisionModel(tower.config).eval()
    weights = tower.state_dict()
    for ours, theirs in CLIP_NAMES.items():
        weights = {theirs + name[len(ours) :] if name.startswith(ours) else name: w for name, w in weights.items()}
    stock.load_state_dict(weights)
    return stock


def stock_cross_layer(layer, config) -> BridgeTowerBertCrossLayer:
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps")
    options = BridgeTowerTextConfig(**{name: getattr(config, name) for name in names})
    options._attn_implementation = "eager"
    stock = BridgeTowerBertCrossLayer(options).eval()
    stock.load_state_dict(layer.state_dict())
    return stock


def assembled(model, inputs: dict, image_token_type_idx: int = 1) -> torch.Tensor:
    """Pooled states, computed with the stock classes alone."""
    text_model = RobertaModel(model.config.text_config, add_pooling_layer=False).eval()
    text_model.load_state_dict(model.text_model.state_dict())
    clip = stock_clip(model.vision_model)
    text = text_model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    image = clip.post_layernorm(clip(inputs["pixel_values"]).last_hidden_state)
    text = model.cross_modal_text_transform(text) + model.token_type_embeddings.weight[0]
    image = model.cross_modal_image_transform(image) + model.token_type_embeddings.weight[image_token_type_idx]
    mask = (1.0 - inputs["attention_mask"][:, None, None]) * torch.finfo(torch.float32).min
    for text_layer, image_layer in zip(model.cross_modal_text_layers, model.cross_modal_image_layers, strict=True):
        text, image = (
            stock_cross_layer(text_layer, model.config)(text, image, mask, None)[0],
            stock_cross_layer(image_layer, model.config)(image, text, None, mask)[0],
        )
    pooled = []
    for states, pooler in ((text, model.cross_modal_text_pooler), (image, model.cross_modal_image_pooler)):
        stock = BridgeTowerPooler(model.config)
        stock.load_state_dict(pooler.state_dict())
        pooled.append(stock(states))
    return torch.cat(pooled, dim=-1)


@pytest.mark.parametrize("batch", ["one", "whole", "ragged"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_the_encoder_is_made_of_stock_blocks(attention, batch):
    model = random_meter("model")
    assert model.config.vision_config._attn_implementation == "sdpa"
    model.set_attn_implementation(attention)
    assert model.vision_model.config._attn_implementation == model.text_model.config._attn_implementation == attention
    inputs = tiny_meter_inputs(batch)
    pooled = model(**inputs).pooler_output
    assert difference(pooled, assembled(model, inputs)) <= 1e-5
    assert batch == "one" or pooled.std(0).max() > 1e-2
    other = model(**inputs, image_token_type_idx=2).pooler_output
    assert difference(other, assembled(model, inputs, 2)) <= 1e-5
    assert difference(other, pooled) > 1e-3


def test_the_default_is_the_published_size():
    config = MeterConfig(num_labels=3129)
    with torch.device("meta"):
        model = MeterForQuestionAnswering(config)

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert len(model.meter.vision_model.layers) == 11
    assert model.meter.vision_model.embeddings.num_positions == 577
    assert round(count(model.meter.vision_model) / 1e5) == 790
    assert round(count(model.meter.text_model) / 1e5) == 1241  # RoBERTa-base without its pooler
    assert round(count(model.meter.cross_modal_text_layers) / 1e5) == 567
    assert config.text_config.layer_norm_eps == config.vision_config.layer_norm_eps == 1e-5
    assert config.layer_norm_eps == 1e-12
    assert config.vision_config.hidden_act == "quick_gelu"
    assert config.max_position_embeddings == 512


@pytest.mark.parametrize("size", [(32, 32), (24, 24), (40, 20)])
@torch.no_grad()
def test_positions_are_interpolated_and_that_of_cls_stays(size):
    tower = random_meter("model").vision_model
    height, width = (side // 4 for side in size)
    weight = tower.embeddings.position_embedding.weight
    grid = weight[1:].T.reshape(1, 32, 8, 8)
    grid = torch.nn.functional.interpolate(grid, size=(height, width), mode="bicubic")
    positions = torch.cat([weight[:1], grid[0].flatten(1).T])
    pixels = torch.randn(2, 3, *size)
    patches = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    cls = tower.embeddings.class_embedding.expand(2, 1, -1)
    expected = tower.pre_layernorm(torch.cat([cls, patches], dim=1) + positions)
    assert difference(tower.embed(pixels), expected) <= 1e-5
    assert tower(pixels).shape == (2, 1 + height * width, 32)


@torch.no_grad()
def test_features_of_either_tower_can_be_given():
    model = random_meter()
    inputs = tiny_meter_inputs("ragged")
    expected = model(**inputs).logits
    image = model.meter.get_image_features(inputs["pixel_values"])
    text = model.meter.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    assert image.shape == (3, 65, 32)
    assert torch.equal(
        model(attention_mask=inputs["attention_mask"], text_embeds=text, image_embeds=image).logits, expected
    )
    shared = model(inputs["input_ids"], inputs["attention_mask"], image_embeds=image[:1].expand(3, -1, -1)).logits
    alone = model(**{**inputs, "pixel_values": inputs["pixel_values"][:1].expand(3, -1, -1, -1)}).logits
    assert difference(shared, alone) <= 1e-5


@pytest.mark.parametrize("head", ["question_answering", "entailment", "retrieval"])
@torch.no_grad()
def test_heads_read_the_pooled_states_and_padding_changes_nothing(head):
    model = random_meter(head)
    inputs = tiny_meter_inputs("ragged")
    logits = model(**inputs).logits
    pooled = model.meter(**inputs).pooler_output
    assert difference(logits, (model.rank_output if head == "retrieval" else model.classifier)(pooled)) <= 1e-6
    assert logits.shape == (3, {"question_answering": 10, "entailment": 3, "retrieval": 1}[head])
    for row in range(3):
        assert difference(model(**row_of_meter(inputs, row)).logits, logits[row : row + 1]) <= 1e-5


@torch.no_grad()
def test_two_images_are_read_one_after_the_other():
    model = random_meter("two_images")
    inputs = tiny_meter_inputs("ragged", images=2)
    output = model(**inputs, labels=torch.tensor([0, 1, 2]))
    pooled = [
        model.meter(
            inputs["input_ids"],
            inputs["attention_mask"],
            inputs["pixel_values"][:, number],
            image_token_type_idx=number + 1,
        ).pooler_output
        for number in range(2)
    ]
    assert difference(output.logits, model.classifier(torch.cat(pooled, dim=-1))) <= 1e-5
    assert output.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2])).item()
    )
    for row in range(3):
        assert difference(model(**row_of_meter(inputs, row)).logits, output.logits[row : row + 1]) <= 1e-5
    with pytest.raises(ValueError, match="3 images per text; the model takes 2"):
        model(**tiny_meter_inputs("whole", images=3))
    with pytest.raises(ValueError, match="2 images and a text need 3"):
        MeterForImagesAndTextClassification(tiny_meter_config(modality_type_vocab_size=2))


@torch.no_grad()
def test_the_heads_of_pretraining():
    model = random_meter("pretraining")
    inputs = tiny_meter_inputs("ragged")
    states = model.meter(**inputs)
    output = model(**inputs)
    assert output.prediction_logits.shape == (3, 12, model.config.text_config.vocab_size)
    assert torch.equal(output.matching_logits, model.itm_score(states.pooler_output))
    assert model.mlm_score.decoder.weight is not model.get_input_embeddings().weight


@torch.no_grad()
def test_states_and_attentions_are_collected():
    model = random_meter()
    inputs = tiny_meter_inputs("ragged")
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape for states in pair) for pair in output.hidden_states] == [((3, 12, 64), (3, 65, 64))] * 5
    assert [tuple(weights.shape[2:] for weights in four) for four in output.attentions] == [
        ((12, 12), (12, 65), (65, 65), (65, 12))
    ] * 4
    assert difference(output.logits, model(**inputs).logits) <= 1e-5
    assert torch.equal(model(**inputs, return_dict=False)[0], model(**inputs).logits)


@torch.no_grad()
def test_losses():
    inputs = tiny_meter_inputs("whole")
    model, labels = random_meter(), torch.rand(2, 10)
    output = model(**inputs, labels=labels)
    each = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, labels, reduction="none")
    assert output.loss.item() == pytest.approx(each.sum(-1).mean().item(), rel=1e-5)
    entailment = random_meter("entailment")
    assert entailment.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}
    output = entailment(**inputs, labels=torch.tensor([2, 0]))
    assert output.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(output.logits, torch.tensor([2, 0])).item()
    )
    with pytest.raises(ValueError, match="num_labels=2"):
        MeterForVisualEntailment(tiny_meter_config(id2label=None, label2id=None, num_labels=2))
    with pytest.raises(NotImplementedError, match="candidates"):
        random_meter("retrieval")(**inputs, labels=torch.zeros(2))


@pytest.mark.parametrize("head", METER_HEADS)
@torch.no_grad()
def test_saving_and_loading_gives_the_same_model(head, tmp_path):
    model = random_meter(head)
    model.save_pretrained(tmp_path)
    again, info = METER_HEADS[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.config.vision_config.hidden_size == 32
    assert again.config.text_config.layer_norm_eps == 1e-5
    inputs = tiny_meter_inputs("ragged", images=2 if head == "two_images" else 1)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    for first, second in zip(model(**inputs).values(), again(**inputs).values(), strict=True):
        torch.testing.assert_close(second, first)


def test_new_weights_follow_the_paper():
    torch.manual_seed(0)
    model = MeterForQuestionAnswering(tiny_meter_config(hidden_size=128, intermediate_size=512))
    layer = model.meter.cross_modal_image_layers[0]
    assert layer.intermediate.dense.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.intermediate.dense.bias.abs().max() == 0
    assert (layer.output.LayerNorm.weight == 1).all()
    assert model.classifier[0].weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_every_weight_gets_a_gradient_and_dropout_can_be_off():
    towers = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = tiny_meter_config(**towers)
    for name, value in towers.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    model = MeterForQuestionAnswering(config).train()
    inputs = tiny_meter_inputs("ragged")
    loss = model(**inputs, labels=torch.eye(10)[:3]).loss
    assert loss == model(**inputs, labels=torch.eye(10)[:3]).loss
    loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    new_name = getattr(model, "activation_checkpointing_enable", None)  # transformers before 5.23 has the old one
    (new_name or model.gradient_checkpointing_enable)()
    model(**inputs, labels=torch.eye(10)[:3]).loss.backward()
    for before, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(before, parameter.grad, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "exactly one of pixel_values or image_embeds"),
        ({"input_ids": None}, "exactly one of input_ids or text_embeds"),
        ({"attention_mask": torch.tensor([[0] + [1] * 11] * 2)}, "padded on the right"),
        ({"pixel_values": torch.zeros(3, 3, 32, 32)}, "2 texts and 3 images"),
        ({"pixel_values": torch.zeros(2, 3, 30, 32)}, "30x32 pixels; .* multiples of the patch size, 4"),
    ],
)
def test_wrong_inputs_raise(change, message):
    with pytest.raises(ValueError, match=message):
        random_meter()(**{**tiny_meter_inputs("whole"), **change})


def test_a_width_that_heads_do_not_divide_raises():
    with pytest.raises(ValueError, match="hidden_size=64 is not a multiple of num_attention_heads=5"):
        tiny_meter_config(num_attention_heads=5)


def test_the_processor_crops_or_squares_and_loads_by_itself(tmp_path):
    picture = tiny_image().resize((48, 32))
    cropped = tiny_meter_processor()(images=picture, text="what color is the circle ?", return_tensors="pt")
    assert cropped["pixel_values"].shape == (1, 3, 32, 32)
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    pixels = torch.tensor(np.asarray(picture.crop((8, 0, 40, 32)))) / 255
    assert difference(cropped["pixel_values"][0], ((pixels - mean) / deviation).permute(2, 0, 1)) <= 1e-5
    squared = tiny_meter_processor("square")
    assert squared(images=picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)
    assert difference(squared(images=picture, return_tensors="pt")["pixel_values"], cropped["pixel_values"]) > 0.1
    with pytest.raises(ValueError, match="resize='pad'; allowed: 'crop', 'square'"):
        meter_processor(squared.tokenizer, 32, "pad")

    random_meter().save_pretrained(tmp_path)
    squared.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    texts = ["what color is the circle ?", "yes"]
    first, second = (
        processor(images=[picture] * 2, text=texts, padding=True, return_tensors="pt") for processor in (squared, again)
    )
    assert set(first) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["input_ids"][1].tolist()[0] == 0
    assert first["input_ids"][1, 3:].eq(1).all()  # padded on the right
    assert first["attention_mask"][1].sum() == 3


def test_the_trainer_fits(tmp_path):
    rows = [
        {name: values[row] for name, values in tiny_meter_inputs("ragged").items()} | {"labels": torch.eye(10)[row]}
        for row in range(3)
    ]
    options = TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(random_meter(), options, train_dataset=rows)
    assert trainer.train().global_step == 2
    assert trainer.predict(rows).predictions.shape == (3, 10)
