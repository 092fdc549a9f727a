"""The training losses measure what they say."""

import numpy as np
import torch
import torch.nn.functional as F

from pocket import curriculum
from pocket.batches import encode
from pocket.curriculum import STAGES, easy_vqa_batch, scene_batch
from pocket.llava_next import build_model
from pocket.losses import (
    GUIDED_HEADS,
    GUIDED_LAYER,
    HIDDEN,
    PocketTrainingModel,
    low_precision_attention,
)


def batch_of(stage, independent=True):
    batch, _ = scene_batch(np.random.default_rng(0), stage, 2, independent)
    return {**batch, "auxiliary_weight": torch.tensor(0.5), "guidance_weight": torch.tensor(0.25)}


def test_training_attention_equals_sdpa():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(3))
    mask = torch.zeros(2, 1, 5, 5).masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), HIDDEN)
    output, weights = low_precision_attention(torch.nn.Module(), query, key, value, mask, scaling=8**-0.5)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    assert weights is None


@torch.no_grad()
def test_guidance_is_the_attention_that_the_stock_model_pays():
    training = PocketTrainingModel(build_model())
    batch = batch_of(STAGES[0])
    _, parts = training(**batch)
    training.model.set_attn_implementation("eager")
    attentions = training.model(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        image_sizes=batch["image_sizes"],
        position_ids=batch["position_ids"],
        attention_mask=torch.where(batch["attention_mask"], 0.0, HIDDEN),
        output_attentions=True,
    ).attentions[GUIDED_LAYER]
    useful = batch["guide_targets"].any(-1)
    rows, positions = batch["guide_rows"][useful], batch["guide_positions"][useful]
    first = int((batch["input_ids"][0] == training.model.config.image_token_id).nonzero()[0])
    targets = batch["guide_targets"][useful]
    paid = attentions[rows, :GUIDED_HEADS, positions, first : first + targets.shape[1]]
    expected = -(paid * targets[:, None]).sum(-1).log().mean()
    torch.testing.assert_close(parts["guidance"], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_loss_is_the_weighted_sum_of_its_parts():
    training = PocketTrainingModel(build_model())
    loss, parts = training(**batch_of(STAGES[2], independent=False))
    expected = parts["answer"] + 0.5 * parts["patch"] + 0.1 * parts["presence"] + 0.25 * parts["guidance"]
    torch.testing.assert_close(loss, expected)


def test_easy_vqa_pictures_train_answers_only(monkeypatch):
    image = np.zeros((64, 64, 3), np.uint8)
    asked = [[encode("what color is the shape?", "teal", (), "easy_vqa")]]
    monkeypatch.setattr(curriculum, "easy_vqa_training_set", lambda: ([image], asked))
    loss, parts = PocketTrainingModel(build_model())(**easy_vqa_batch(np.random.default_rng(0), 2, True))
    assert set(parts) == {"answer", "accuracy"}
    torch.testing.assert_close(loss.detach(), parts["answer"])


def test_every_trained_part_gets_a_gradient():
    training = PocketTrainingModel(build_model())
    loss, _ = training(**batch_of(STAGES[0]))
    loss.backward()
    without = [name for name, parameter in training.named_parameters() if parameter.grad is None]
    assert without == []
