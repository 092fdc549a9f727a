"""ViLT's subclasses without a reduction are stock ViLT; loading is strict; the patch order is fixed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from sizes import one_fast
from tiny_vilt import STOCK_HEADS, row_of, tiny_vilt_config, tiny_vilt_inputs
from transformers import Trainer, TrainingArguments, ViltConfig, ViltForQuestionAnswering

from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import (
    ViltTokenDropConfig,
    ViltTokenDropForImageAndTextRetrieval,
    ViltTokenDropForImagesAndTextClassification,
    ViltTokenDropForQuestionAnswering,
    ViltTokenDropForVisualEntailment,
    ViltTokenDropModel,
)
from lmms_tokendrop.modeling.core.attention import fusion_attention_rows
from lmms_tokendrop.modeling.ops.image_patches import place_patches, position_grid, shrink_images

HEADS = {
    "model": ViltTokenDropModel,
    "question_answering": ViltTokenDropForQuestionAnswering,
    "retrieval": ViltTokenDropForImageAndTextRetrieval,
    "two_images": ViltTokenDropForImagesAndTextClassification,
}
ATTENTIONS = one_fast(("sdpa", "eager"))


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


@pytest.mark.parametrize("batch", ["one", "whole", "ragged"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_unreduced_equals_stock(tiny_vilt_checkpoint, head, attention, batch):
    path = tiny_vilt_checkpoint(head)
    stock = STOCK_HEADS[head].from_pretrained(path).eval()
    ours = HEADS[head].from_pretrained(path, attn_implementation=attention)
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in stock.state_dict().items()
    }
    inputs = tiny_vilt_inputs(batch, images=2 if head == "two_images" else 1)
    expected, actual = stock(**inputs), ours(**inputs)
    if head == "model":
        assert difference(expected.pooler_output, actual.pooler_output) <= 1e-5
        # stock permutes the patches of whole images: compare them as a set
        assert difference(expected.last_hidden_state[:, :13], actual.last_hidden_state[:, :13]) <= 1e-5
        if batch != "ragged":
            first, second = (output.last_hidden_state.double().square().sum((1, 2)) for output in (expected, actual))
            assert torch.allclose(first, second, rtol=1e-5)
    else:
        assert difference(expected.logits, actual.logits) <= 1e-5
        assert batch == "one" or actual.logits.std(0).max() > 1e-2


@torch.no_grad()
def test_states_and_attentions_are_collected(tiny_vilt_checkpoint):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    inputs = tiny_vilt_inputs("ragged")
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [states.shape for states in output.hidden_states] == [(3, 12 + 97, 64)] * 5
    assert [weights.shape for weights in output.attentions] == [(3, 4, 109, 109)] * 4
    assert torch.allclose(output.logits, model(**inputs).logits, atol=1e-5)
    as_tuple = model(**inputs, return_dict=False)
    assert torch.equal(as_tuple[0], model(**inputs).logits)


@torch.no_grad()
def test_a_padded_row_equals_the_row_alone(tiny_vilt_checkpoint):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    inputs = tiny_vilt_inputs("ragged")
    together = model(**inputs)
    assert together.report.visual_tokens_per_layer[0] == [97, 73, 65]
    assert together.report.text_tokens[0] == [12, 7, 4]
    for row in range(3):
        assert difference(model(**row_of(inputs, row)).logits, together.logits[row : row + 1]) <= 1e-5


@torch.no_grad()
def test_embedded_inputs_equal_raw_ones(tiny_vilt_checkpoint):
    model = ViltTokenDropModel.from_pretrained(tiny_vilt_checkpoint("model"))
    inputs = tiny_vilt_inputs("ragged")
    words = model.get_input_embeddings()(inputs["input_ids"])
    image, valid, _ = model.embeddings.image_tokens(inputs["pixel_values"], inputs["pixel_mask"])
    output = model(inputs_embeds=words, attention_mask=inputs["attention_mask"], image_embeds=image, pixel_mask=valid)
    assert torch.equal(output.last_hidden_state, model(**inputs).last_hidden_state)
    assert output.report.patches is None


@torch.no_grad()
def test_attention_rows_are_those_of_the_full_matrix(tiny_vilt_checkpoint):
    query, key = torch.randn(2, 2, 4, 9, 16).unbind()
    mask = torch.zeros(2, 1, 1, 9)
    mask[1, ..., 7:] = torch.finfo(torch.float32).min
    rows = torch.zeros(2, 9, dtype=torch.bool)
    rows[0, [0, 3, 4]] = True
    rows[1, [1, 6]] = True
    full = (query @ key.transpose(2, 3) / 4 + mask).softmax(-1)
    expected = torch.zeros(2, 4, 3, 9)
    expected[0], expected[1, :, :2] = full[0, :, [0, 3, 4]], full[1, :, [1, 6]]
    assert torch.allclose(fusion_attention_rows(query, key, mask, rows), expected, atol=1e-6)


@torch.no_grad()
def test_losses(tiny_vilt_checkpoint):
    path, inputs = tiny_vilt_checkpoint(), tiny_vilt_inputs("whole")
    labels = torch.rand(2, 10)
    expected = ViltForQuestionAnswering.from_pretrained(path).eval()(**inputs, labels=labels).loss
    assert ViltTokenDropForQuestionAnswering.from_pretrained(path)(**inputs, labels=labels).loss.item() == (
        pytest.approx(expected.item(), rel=1e-5)
    )
    with pytest.raises(NotImplementedError, match="candidates"):
        ViltTokenDropForImageAndTextRetrieval.from_pretrained(tiny_vilt_checkpoint("retrieval"))(
            **inputs, labels=torch.zeros(2)
        )
    two = ViltTokenDropForImagesAndTextClassification.from_pretrained(tiny_vilt_checkpoint("two_images"))
    inputs = tiny_vilt_inputs("whole", images=2)
    output = two(**inputs, labels=torch.tensor([1, 0]))
    assert output.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(output.logits, torch.tensor([1, 0])).item()
    )
    assert len(output.report) == 2
    with pytest.raises(ValueError, match="1 images per text; the model takes 2"):
        two(**tiny_vilt_inputs("whole"))


@torch.no_grad()
def test_visual_entailment_has_three_labels_and_cross_entropy(tiny_vilt_checkpoint):
    names = {"id2label": None, "label2id": None, "num_labels": 3}
    torch.manual_seed(0)
    model = ViltTokenDropForVisualEntailment(ViltTokenDropConfig(**tiny_vilt_config(**names).to_dict())).eval()
    assert model.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}
    output = model(**tiny_vilt_inputs("whole"), labels=torch.tensor([2, 0]))
    assert output.logits.shape == (2, 3)
    assert output.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(output.logits, torch.tensor([2, 0])).item()
    )
    with pytest.raises(ValueError, match="num_labels=2"):
        ViltTokenDropForVisualEntailment(ViltTokenDropConfig())


def test_saving_and_loading_gives_the_same_model(tiny_vilt_checkpoint, tmp_path):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    model.save_pretrained(tmp_path)
    again = ViltTokenDropForQuestionAnswering.from_pretrained(tmp_path)
    assert again.config.model_type == "vilt_tokendrop"
    assert again.config.token_reduction == {"method": "none"}
    inputs = tiny_vilt_inputs("ragged")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    stock = ViltForQuestionAnswering.from_pretrained(tmp_path, config=ViltConfig.from_pretrained(tmp_path))
    assert set(stock.state_dict()) == set(model.state_dict())


def test_a_checkpoint_that_does_not_fit_is_an_error(tiny_vilt_checkpoint, tmp_path):
    ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["vilt.layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: vilt.layernorm.weight \(1 in all\)"):
        ViltTokenDropForQuestionAnswering.from_pretrained(tmp_path)
    ViltTokenDropForQuestionAnswering.from_pretrained(tmp_path, new_parameters=("vilt.layernorm.",))
    with pytest.raises(ValueError, match="missing_keys: rank_output"):
        ViltTokenDropForImageAndTextRetrieval.from_pretrained(tiny_vilt_checkpoint())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "exactly one of pixel_values or image_embeds"),
        ({"input_ids": None}, "exactly one of input_ids or inputs_embeds"),
        ({"attention_mask": torch.tensor([[0] + [1] * 11] * 2)}, "padded on the right"),
        ({"pixel_values": torch.zeros(3, 3, 32, 48)}, "2 texts and 3 images"),
    ],
)
def test_wrong_inputs_raise(tiny_vilt_checkpoint, change, message):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    with pytest.raises(ValueError, match=message):
        model(**{**tiny_vilt_inputs("whole"), **change})


@pytest.mark.parametrize("head", HEADS)
def test_unknown_arguments_raise(tiny_vilt_checkpoint, head):
    model = HEADS[head].from_pretrained(tiny_vilt_checkpoint(head))
    inputs = tiny_vilt_inputs("whole", images=2 if head == "two_images" else 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_seed'"):
        model(**inputs, sample_seed=torch.zeros(2))


def test_wrong_options_raise(tiny_vilt_checkpoint):
    with pytest.raises(ValueError, match=r"unknown option 'methd'.*did you mean 'method'"):
        ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint(), token_reduction={"methd": "none"})
    with pytest.raises(ValueError, match="method='mustdrop'; allowed: 'none'"):
        ViltTokenDropConfig(token_reduction={"method": "mustdrop"})


def test_patches_come_in_raster_order_and_a_limit_spaces_them_evenly():
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0], mask[1, :2, :3] = True, True
    index, valid = place_patches(mask, None, random_subset=False)
    assert index.tolist() == [list(range(12)), [0, 1, 2, 4, 5, 6] + [0] * 6]
    assert valid.sum(-1).tolist() == [12, 6]
    index, valid = place_patches(mask, 6, random_subset=False)
    assert index.tolist() == [[0, 2, 4, 6, 8, 10], [0, 1, 2, 4, 5, 6]]
    torch.manual_seed(0)
    index, valid = place_patches(mask, 6, random_subset=True)
    assert valid.all()
    assert (index.diff(dim=-1) > 0).all()
    assert index[1].tolist() == [0, 1, 2, 4, 5, 6]


def test_positions_are_interpolated_to_each_image():
    embeddings = torch.cat([torch.full((1, 1, 1), 9.0), torch.arange(4.0).view(1, 4, 1)], dim=1)
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[0], mask[1, :2, :2] = True, True
    grid = position_grid(embeddings, mask, 2).view(2, 3, 3)
    assert grid[0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]
    assert grid[1].tolist() == [[0, 1, 0], [2, 3, 0], [0, 0, 0]]


def test_images_shrink_on_their_own_to_whole_patches():
    pixels = torch.randn(2, 3, 32, 48)
    mask = torch.ones(2, 32, 48)
    mask[1, 24:], mask[1, :, 20:] = 0, 0
    smaller, inside = shrink_images(pixels, mask, 0.5, 4)
    assert smaller.shape == (2, 3, 16, 24)
    assert inside.sum((1, 2)).tolist() == [16 * 24, 12 * 8]  # 10 columns round to two patches
    alone, whole = shrink_images(pixels[1:, :, :24, :20], mask[1:, :24, :20], 0.5, 4)
    assert whole.all()
    assert torch.equal(alone[0], smaller[1, :, :12, :8])
    assert not smaller[1, :, 12:].any()


def test_the_trainer_fits_and_predicts(tiny_vilt_checkpoint, tmp_path):
    reduction = {"method": "pumer"}
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint(), token_reduction=reduction)
    rows = [
        {name: values[row] for name, values in tiny_vilt_inputs("ragged").items()} | {"labels": torch.eye(10)[row]}
        for row in range(3)
    ]
    options = TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(model, options, train_dataset=rows)
    assert trainer.train().global_step == 2
    predicted = trainer.predict(rows)
    assert predicted.predictions.shape == (3, 10)
    assert predicted.metrics["test_loss"] > 0
