"""What is trained is the stock model, and packed questions do not see each other."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocket import encoder_curriculum
from pocket.encoder_batches import ABSENT
from pocket.encoder_curriculum import VILT_STAGES, EncoderCurriculum, stage_batch
from pocket.recipes import RECIPES
from pocket.training import make_trainer, validate

ENCODERS = ["vilt", "meter"]
TASK, PACKED = VILT_STAGES[-1], VILT_STAGES[1]


@pytest.fixture(params=ENCODERS)
def recipe(request):
    return RECIPES[request.param]()


def batch_of(recipe, stage, images, **options):
    stage = dataclasses.replace(stage, images=images, **options)
    return stage_batch(np.random.default_rng(3), stage, recipe.processor.tokenizer)[0]


@torch.no_grad()
def test_one_question_gives_the_logits_of_the_stock_model(recipe):
    training = recipe.build(0).eval()
    batch = batch_of(recipe, TASK, 3)
    logits, _, _ = training.answers(batch)
    tokenizer = recipe.processor.tokenizer
    texts = tokenizer.batch_decode(batch["input_ids"][:, 0], skip_special_tokens=True)
    pictures = [image.permute(1, 2, 0).numpy() for image in batch["images"]]
    inputs = recipe.processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    torch.testing.assert_close(logits[:, 0], training.model(**inputs).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_packed_questions_do_not_see_each_other(recipe):
    training = recipe.build(0).eval()
    batch = batch_of(recipe, PACKED, 2)
    other = {**batch, "input_ids": batch["input_ids"].clone(), "attention_mask": batch["attention_mask"].clone()}
    for name in ("input_ids", "attention_mask"):
        other[name][:, 0] = batch[name][:, 1]
    before, after = training.answers(batch)[0], training.answers(other)[0]
    torch.testing.assert_close(after[:, 1:], before[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after[:, 0], before[:, 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after[:, 0], before[:, 0], atol=1e-2)


def test_small_pictures_take_their_positions_from_their_corner_of_the_grid(recipe):
    training = recipe.build(0).eval()
    batch = batch_of(recipe, PACKED, 1)
    training(**{**batch, "corner": torch.tensor([4, 2])})[0].backward()
    (grid,) = [value for _, value in training.named_parameters() if value.numel() == 145 * value.shape[-1]]
    touched = grid.grad.view(145, -1)[1:].view(12, 12, -1).abs().sum(-1) > 0
    assert touched.nonzero().min(0).values.tolist() == [4, 2]
    assert touched.nonzero().max(0).values.tolist() == [9, 7]


def test_the_losses_are_what_they_say():
    training = RECIPES["vilt"]().build(0).eval()
    batch = batch_of(RECIPES["vilt"](), PACKED, 2)
    batch["labels"][0, 0] = ABSENT
    asked = batch["labels"] != ABSENT
    logits, _, seen = training.answers(batch)
    loss, parts = training(**batch)
    assert parts["answer"].item() == pytest.approx(F.cross_entropy(logits[asked], batch["labels"][asked]).item())
    mass = (seen * batch["shown"][:, None]).sum(-1).transpose(1, 2)[batch["shown"].any(-1)]
    assert parts["guidance"].item() == pytest.approx(-mass.log().mean().item(), rel=1e-4)
    total = parts["answer"] + 0.3 * parts["label_wise"] + 0.3 * parts["patch"] + 0.2 * parts["guidance"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert training.hits(batch).shape == (int(asked.sum()),)


def test_a_step_changes_every_weight(recipe, tmp_path, monkeypatch):
    curriculum = EncoderCurriculum((dataclasses.replace(TASK, images=2),), recipe.processor.tokenizer)
    training = recipe.build(0)
    before = {name: value.clone() for name, value in training.named_parameters()}
    options = {"seed": 0, "start": 0, "max_steps": 1, "learning_rate": 1e-2, "lr_multipliers": {}, "bf16": False}
    monkeypatch.setattr("pocket.training.validate", lambda *args: {"accuracy": 0.0})
    make_trainer(training, tmp_path, curriculum, **options).train()
    same = [name for name, value in training.named_parameters() if torch.equal(value, before[name])]
    assert not same


def test_validation_asks_about_a_thousand_questions_that_training_never_sees(recipe, monkeypatch):
    monkeypatch.setattr(encoder_curriculum, "VALIDATION_QUESTIONS", 40)

    class Right:
        def hits(self, batch):
            return torch.ones(int((batch["labels"] != ABSENT).sum()), dtype=torch.bool)

    curriculum = recipe.curriculum
    result = validate(Right(), curriculum.validation(curriculum.task_name()))
    assert result["accuracy"] == 1.0
    assert result["questions"] >= 40
    trained = next(iter(curriculum.stream(0, 10**6)))
    held_out, _ = next(iter(curriculum.validation(curriculum.task_name())))
    assert not torch.equal(trained["images"], held_out["images"])
