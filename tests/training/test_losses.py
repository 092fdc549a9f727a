"""The losses against values worked out by hand."""

import math

import pytest
import torch

from lmms_tokendrop.training.losses import distillation_loss, kept_token_loss, soft_target_loss


def test_soft_targets_are_summed_over_labels_or_averaged():
    scores, targets = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), torch.tensor([[0.3, 1.0], [0.0, 0.6]])
    # sigmoid(0) = 1/2, sigmoid(log 3) = 3/4
    summed = ((math.log(2) - math.log(3 / 4)) + 2 * math.log(2)) / 2
    assert soft_target_loss(scores, targets, "sum").item() == pytest.approx(summed)
    assert soft_target_loss(scores, targets, "mean").item() == pytest.approx(summed / 2)


def test_the_divergence_is_of_the_student_from_the_teacher():
    student = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log() + 7
    teacher = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])
    expected = (0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)) / 2
    assert distillation_loss(student, teacher.log()).item() == pytest.approx(expected)
    assert distillation_loss(teacher.log(), teacher.log()).item() == pytest.approx(0, abs=1e-7)


def test_one_choice_cannot_be_distilled():
    with pytest.raises(ValueError, match="two choices or more"):
        distillation_loss(torch.zeros(4, 1), torch.zeros(4, 1))


def test_only_kept_tokens_are_compared():
    states, teacher = torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    assert kept_token_loss(states, teacher, torch.tensor([[True, False]])).item() == (1 + 4) / 2
    assert kept_token_loss(states, teacher, torch.tensor([[False, False]])).item() == 0
