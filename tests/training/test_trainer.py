"""The parts of the loss, parameter groups, the schedule, and accumulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sizes import some_fast
from torch.nn import functional

from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering
from lmms_tokendrop.training.model_classes import head_class
from lmms_tokendrop.training.run import LOG, prepare
from lmms_tokendrop.training.trainer import parameter_groups


def parts_of(run) -> tuple[dict, dict]:
    """The first batch and the parts of its loss, the generator seeded with 5."""
    batch = next(iter(run.trainer.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    run.trainer.model.train()
    torch.manual_seed(5)
    return batch, run.trainer.loss_parts(run.trainer.model, inputs, batch["labels"])


def last_patches(output) -> torch.Tensor:
    """The last states of the 64 patches of every image."""
    states = output.last_hidden_state if "last_hidden_state" in output else output.image_states
    return states[:, -64:]


def log_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_the_total_is_task_and_weighted_divergence(options, checkpoint, tmp_path):
    run = prepare(options(teacher=checkpoint(), kd_weight=0.25), tmp_path)
    assert run.trainer.teacher.config.token_reduction == {"method": "none"}
    batch, parts = parts_of(run)
    run.trainer.model.train()
    total = run.trainer.compute_loss(run.trainer.model, batch)
    assert parts.keys() == {"task", "kl"}
    assert parts["kl"] > 0
    assert total.item() == pytest.approx((parts["task"] + 0.25 * parts["kl"]).item(), rel=1e-5)


def test_the_parts_are_those_of_student_and_unreduced_teacher(options, checkpoint, tmp_path):
    run = prepare(options(teacher=checkpoint(seed=1)), tmp_path)
    batch, parts = parts_of(run)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    teacher = ViltTokenDropForQuestionAnswering.from_pretrained(checkpoint(seed=1)).eval()
    with torch.no_grad():
        ours = run.trainer.model(**inputs).logits
        theirs = teacher(**inputs).logits
    kl = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum() / len(ours)
    task = functional.binary_cross_entropy_with_logits(ours, batch["labels"], reduction="sum") / len(ours)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert parts["task"].item() == pytest.approx(task.item(), rel=1e-5)


@pytest.mark.parametrize(("architecture", "layers"), [("vilt", [1, 2]), ("meter", [2, 4])])
def test_dynamicvit_adds_its_ratio_and_its_kept_tokens(architecture, layers, options, checkpoint, tmp_path):
    reduction = {"layers": layers, "keep_ratio": 0.5}
    changes = {"architecture": architecture, "teacher": checkpoint(seed=1, architecture=architecture)}
    run = prepare(options(method="dynamicvit", reduction=reduction, **changes), tmp_path)
    assert run.trainer.weights == {"task": 1.0, "kl": 0.5, "tokens": 0.5, "ratio": 2.0}
    batch, parts = parts_of(run)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    student, teacher = run.trainer.model, run.trainer.teacher
    with torch.no_grad():
        torch.manual_seed(5)
        report = student(**inputs).report
        torch.manual_seed(5)
        ours, theirs = (last_patches(model.base_model(**inputs)) for model in (student, teacher))
    tokens = report.received[0]
    kept = (
        torch.stack([policy[image][1:] for policy, image in zip(report.policies[-1], tokens.image, strict=True)]) == 1
    )
    assert 0 < int(kept.sum()) < kept.numel()
    expected = (ours - theirs)[kept].square().mean()
    assert parts["tokens"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert parts["ratio"].item() == pytest.approx(student.base_model.token_reducer.ratio_loss(report).item(), rel=1e-5)
    assert parts["kl"] > 0


@pytest.mark.parametrize(
    "case",
    some_fast(
        (
            ("vilt", "pumer", {"prune_ratio": 0.2, "layers": [1, 2]}),
            ("vilt", "dynamicvit", {"keep_ratio": 0.5}),
            ("meter", "none", None),
            ("vilt", "none", None),
            ("vilt", "tome", {"r": 4}),
            ("vilt", "random", {"prune_ratio": 0.3}),
            ("vilt", "smres", {"image_size": 24}),
            ("vilt", "cls_attention", {"cls_token": "image"}),
            ("meter", "pumer", {"prune_ratio": 0.3, "layers": [2, 4]}),
            ("meter", "tome", {"r": 4}),
            ("meter", "vision_tome", {"vision_r": 4}),
            ("meter", "random", {"prune_ratio": 0.3}),
            ("meter", "smres", {"image_size": 24}),
            ("meter", "cls_attention", {"prune_ratio": 0.3}),
        ),
        3,
    ),
    ids=lambda case: "-".join(case[:2]),
)
def test_every_method_trains_and_is_saved_with_its_options(case, options, checkpoint, tmp_path):
    architecture, method, reduction = case
    teacher = None if method == "none" else checkpoint(seed=1, architecture=architecture)
    given = {"architecture": architecture, "method": method, "reduction": reduction, "teacher": teacher}
    results = prepare(options(**given), tmp_path).train()
    loaded = head_class(architecture, "vqa").from_pretrained(tmp_path)
    assert loaded.config.token_reduction == results["token_reduction"] == {"method": method, **(reduction or {})}
    first, second = log_lines(tmp_path)
    assert first["task_loss"] != second["task_loss"]
    assert teacher is None or first["kl_loss"] > 0


def test_parameter_groups(options, tmp_path):
    multipliers = {"head": 10, "text_embeddings": 3}
    run = prepare(options(lr_multipliers=multipliers, learning_rate=1e-3), tmp_path)
    optimizer = run.trainer.create_optimizer()
    names = {parameter: name for name, parameter in run.trainer.model.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    for name, (rate, decay) in found.items():
        factor = 3 if "text_embeddings" in name else 1 if name.startswith("vilt.") else 10
        assert rate == pytest.approx(1e-3 * factor)
        norm = name.endswith("bias") or "norm" in name.lower() or name.startswith("classifier.1.")
        assert decay == (0.0 if norm else 0.01)
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.98), 1e-8)}


def test_cross_modal_layers_of_meter_learn_faster(options, tmp_path):
    given = options(architecture="meter", lr_multipliers={"classifier": 50, "cross_modal": 5}, learning_rate=1e-3)
    model = prepare(given, tmp_path).trainer.model
    for rate, parameters in parameter_groups(model, given.learning_rate, given.lr_multipliers).items():
        for name in parameters:
            factor = 50 if name.startswith("classifier.") else 5 if name.startswith("meter.cross_modal_") else 1
            assert rate == pytest.approx(1e-3 * factor)


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [({"cross_modal": 5}, "no parameter's name contains 'cross_modal'"), ({"head": 2, "classifier": 3}, "both fit")],
)
def test_multipliers_that_fit_nothing_or_twice_are_errors(multipliers, message, options, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare(options(lr_multipliers=multipliers), tmp_path)


def test_the_plain_learning_rate_comes_first(checkpoint):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(checkpoint())
    assert list(parameter_groups(model, 1.0, {"embeddings": 2.0})) == [1.0, 2.0]


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_zero(options, tmp_path):
    prepare(options(max_steps=20, learning_rate=1.0e-4, batch_size=1), tmp_path).train()
    rates = [line["learning_rate"] for line in log_lines(tmp_path)]
    expected = [min(step / 2, (20 - step) / 18) * 1e-4 for step in range(20)]
    assert rates == pytest.approx(expected)


def test_accumulated_batches_train_as_one_large_batch(options, tmp_path):
    folders = tmp_path / "whole", tmp_path / "parts"
    for folder, sizes in zip(folders, ({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}), strict=True):
        prepare(options(**sizes), folder).train()
    whole, parts = map(log_lines, folders)
    for large, small in zip(whole, parts, strict=True):
        assert large["loss"] == pytest.approx(small["loss"], rel=1e-4)
        assert large["grad_norm"] == pytest.approx(small["grad_norm"], rel=1e-4)


def test_bfloat16_comes_near_float32(options, checkpoint, tmp_path):
    losses = {}
    for bf16 in (False, True):
        prepare(options(bf16=bf16, cpu=False, teacher=checkpoint(seed=1)), tmp_path / str(bf16)).train()
        losses[bf16] = log_lines(tmp_path / str(bf16))[0]
    assert losses[True]["task_loss"] != losses[False]["task_loss"]
    assert losses[True]["task_loss"] == pytest.approx(losses[False]["task_loss"], rel=0.05)
    assert losses[True]["kl_loss"] > 0
