"""Wrong options are errors that name what is allowed."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from lmms_tokendrop.training import model_classes
from lmms_tokendrop.training.command import read_options
from lmms_tokendrop.training.options import TrainingOptions, kind
from lmms_tokendrop.training.recipes import RECIPES
from lmms_tokendrop.training.run import check_one_gpu
from lmms_tokendrop.training.tasks import TASKS

BASE = {"pretrained": "start", "data": "pocket_scenes", "max_steps": 5}
STORED = {"pretrained": "start", "data": "folder", "max_steps": 5}


def test_every_task_has_a_head_and_its_data():
    assert tuple(TASKS) == model_classes.TASKS
    for architecture in model_classes.trainable():
        assert all(hasattr(model_classes.head_class(architecture, task), "forward") for task in TASKS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**BASE, "task": "captions"}, r"task='captions'; allowed: 'vqa', 'snli-ve'"),
        ({**BASE, "architecture": "clip"}, r"architecture='clip'; allowed: 'vilt'"),
        ({**BASE, "method": "mustdrop"}, r"method='mustdrop'; allowed: 'none', 'pumer'"),
        ({**BASE, "method": "tome", "reduction": {"prune_ratio": 0.1}}, r"method 'tome' has no option 'prune_ratio'"),
        ({**BASE, "method": "pumer", "reduction": {"prune_ratio": 2}}, r"prune_ratio=2; allowed: a number from 0 to 1"),
        ({**BASE, "vqa_loss": "max"}, r"vqa_loss='max'; allowed: 'sum', 'mean'"),
        ({**BASE, "batch_size": 0}, r"batch_size=0; allowed: a whole number from 1"),
        ({**BASE, "max_steps": 2.5}, r"max_steps=2\.5; allowed: a whole number from 1"),
        ({**BASE, "workers": True}, r"workers=True; allowed: a whole number from 0"),
        ({**BASE, "seed": 2**32}, r"seed=4294967296; allowed: a whole number from 0 to 4294967295"),
        ({**BASE, "warmup": 1.0}, r"warmup=1\.0; allowed: a number from 0, below 1"),
        ({**BASE, "adam_beta2": 1}, r"adam_beta2=1; allowed: a number from 0, below 1"),
        ({**BASE, "bf16": "yes"}, r"bf16='yes'; allowed: True, False"),
        ({**BASE, "reduction": "r=2"}, r"reduction='r=2'; allowed: a dict"),
        ({**STORED, "data": ""}, r"data=''; allowed: a text that is not empty"),
        ({**STORED, "columns": {"image": 3}}, r"columns: image=3; allowed: the name of a column"),
        ({"data": "pocket_scenes", "max_steps": 5}, r"pretrained: name a checkpoint"),
        ({"pretrained": "start", "max_steps": 5}, r"data: name 'pocket_scenes'"),
        ({**STORED, "epochs": 1}, r"max_steps, epochs: give one"),
        ({"pretrained": "start", "data": "folder"}, r"max_steps, epochs: give one"),
        ({**BASE, "task": "nlvr2"}, r"questions and answers only; allowed: task='vqa'"),
        ({"pretrained": "start", "data": "pocket_scenes", "epochs": 1}, r"epochs=1: 'pocket_scenes' is drawn without"),
        ({**BASE, "split": "train"}, r"split='train': 'pocket_scenes' is drawn without end"),
        ({**BASE, "rand_augment": True}, r"rand_augment: it changes the colours"),
        ({**STORED, "task": "nlvr2", "vqa_loss": "mean"}, r"vqa_loss='mean': only task 'vqa' reads it"),
        ({**BASE, "negatives": 3}, r"negatives=3: only task 'retrieval' reads it"),
        (
            {**STORED, "task": "nlvr2", "eval_data": "pocket_scenes", "eval_every": 1},
            r"eval_data='pocket_scenes' has questions and answers only",
        ),
        ({**BASE, "lr_multipliers": {"head": "ten"}}, r"lr_multipliers: head='ten'; allowed: a number from 0"),
        ({**BASE, "eval_limit": 10}, r"eval_limit=10: give eval_every too"),
        ({**BASE, "patience": 3}, r"patience=3: give eval_every too"),
        ({**BASE, "kd_weight": 1.0}, r"kd_weight=1\.0: there is no teacher"),
        ({**BASE, "teacher": "t", "kd_weight": 0.0}, r"the teacher would have no effect"),
        ({**BASE, "method": "pumer", "ratio_weight": 1.0}, r"ratio_weight=1\.0: only method 'dynamicvit'"),
        ({**BASE, "method": "dynamicvit", "token_weight": 1.0}, r"token_weight=1\.0: there is no teacher"),
        ({**BASE, "new_head": True}, r"labels: a new head of vqa needs its answers"),
        ({**BASE, "labels": "answers.txt"}, r"labels: only a new head of vqa"),
    ],
)
def test_wrong_options(given, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**given)


NUMBERS = [entry.name for entry in fields(TrainingOptions) if kind(entry) in (int, float)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1, "3"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_finite_and_in_range(name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value!r}; allowed: a (whole )?number from [01]"):
        TrainingOptions(**{**STORED, name: value})


@pytest.mark.parametrize("factor", [math.inf, math.nan, -1.0, True])
def test_multipliers_are_finite_and_in_range(factor):
    with pytest.raises(ValueError, match=rf"^lr_multipliers: head={factor}; allowed: a number from 0$"):
        TrainingOptions(**BASE, lr_multipliers={"head": factor})


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, {"task": 1.0}),
        ({"kd_weight": 0.0}, {"task": 1.0}),
        ({"teacher": "t"}, {"task": 1.0, "kl": 1.0}),
        ({"teacher": "t", "kd_weight": 0.5}, {"task": 1.0, "kl": 0.5}),
        ({"method": "dynamicvit"}, {"task": 1.0, "ratio": 2.0}),
        ({"method": "dynamicvit", "teacher": "t"}, {"task": 1.0, "kl": 0.5, "tokens": 0.5, "ratio": 2.0}),
        (
            {"method": "dynamicvit", "teacher": "t", "kd_weight": 0.0, "ratio_weight": 3.0},
            {"task": 1.0, "tokens": 0.5, "ratio": 3.0},
        ),
    ],
)
def test_weights_of_the_losses(given, weights):
    assert TrainingOptions(**BASE, **given).loss_weights() == weights


def test_typed_options_are_parsed_and_count_more_than_the_recipe():
    typed = {"pretrained": "p", "teacher": "t", "data": "folder", "lr_multipliers": "classifier=5,cross_modal=2.5"}
    options = read_options("vilt-vqav2", typed)
    assert options.lr_multipliers == {"classifier": 5, "cross_modal": 2.5}
    assert (options.epochs, options.batch_size * options.accumulate, options.vqa_loss) == (20, 512, "mean")
    assert options.token_reduction()["layers"] == [2, 5, 8]
    changed = read_options("vilt-vqav2", {**typed, "reduction": "layers=2+4,prune_ratio=0.2", "max_steps": 7})
    assert (changed.epochs, changed.max_steps) == (None, 7)
    assert changed.token_reduction() == {"method": "pumer", "layers": [2, 4], "prune_ratio": 0.2}
    assert read_options("vilt-vqav2", {**typed, "method": "none"}).token_reduction() == {"method": "none"}


def test_names_of_columns_stay_texts():
    assert read_options(None, {**STORED, "columns": "image=1,question=True"}).columns == {
        "image": "1",
        "question": "True",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name):
    given = {"pretrained": "p", "teacher": "t", "data": "folder"}
    assert read_options(name, given).to_dict().items() >= RECIPES[name].items()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_distils_unless_it_is_told_not_to(name):
    given = {"pretrained": "p", "data": "folder"}
    with pytest.raises(ValueError, match=rf"^teacher: recipe '{name}' distils; name its teacher.* or give kd_weight=0"):
        read_options(name, given)
    assert "kl" in read_options(name, {**given, "teacher": "t"}).loss_weights()
    assert "kl" not in read_options(name, {**given, "kd_weight": 0.0}).loss_weights()
    assert "kl" not in read_options(name, {**given, "method": "none"}).loss_weights()


@pytest.mark.parametrize(
    ("recipe", "typed", "message"),
    [
        ("vilt-gqa", {}, r"recipe='vilt-gqa'; allowed: 'vilt-vqav2'"),
        (None, {"reduction": "prune"}, r"reduction='prune'; allowed: key=value,key=value"),
        (None, {"reduction": "r="}, r"reduction='r='; allowed: key=value,key=value"),
        (None, {"reduction": "r=2,r=3"}, r"reduction='r=2,r=3'; allowed: key=value,key=value, each key once"),
        (None, {"method": "pumer", "reduction": "layers=a"}, r"layers must be integers joined by"),
        (None, {"method": "tome", "reduction": "r=inf"}, r"token_reduction: r=inf; allowed: a whole number from 1"),
        (None, {"lr_multipliers": "head=nan"}, r"lr_multipliers: head=nan; allowed: a number from 0"),
    ],
)
def test_wrong_typing(recipe, typed, message):
    with pytest.raises(ValueError, match=message):
        read_options(recipe, {**BASE, **typed})


def test_several_gpus_in_one_process_are_refused_with_what_to_do():
    check_one_gpu(0)
    check_one_gpu(1)
    with pytest.raises(ValueError, match=r"sees 4 GPUs.*accelerate launch --num_processes 4.*CUDA_VISIBLE_DEVICES=0"):
        check_one_gpu(4)
