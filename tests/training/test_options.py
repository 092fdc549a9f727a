"""Wrong options are errors that name what is allowed."""

from __future__ import annotations

import pytest

from lmms_tokendrop.training.architectures import ARCHITECTURES, TASK_HEADS
from lmms_tokendrop.training.command import read_options
from lmms_tokendrop.training.options import TrainingOptions
from lmms_tokendrop.training.recipes import RECIPES
from lmms_tokendrop.training.tasks import TASKS

BASE = {"pretrained": "start", "data": "pocket_scenes", "max_steps": 5}
STORED = {"pretrained": "start", "data": "folder", "max_steps": 5}


def test_every_task_has_a_head_and_its_data():
    assert tuple(TASKS) == tuple(TASK_HEADS)
    for architecture in ARCHITECTURES.values():
        assert all(hasattr(architecture.head_class(task), "forward") for task in TASKS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**BASE, "task": "captions"}, r"task='captions'; allowed: 'vqa', 'snli-ve'"),
        ({**BASE, "architecture": "clip"}, r"architecture='clip'; allowed: 'vilt'"),
        ({**BASE, "method": "mustdrop"}, r"method='mustdrop'; allowed: 'none', 'pumer'"),
        ({**BASE, "method": "tome", "reduction": {"prune_ratio": 0.1}}, r"method 'tome' has no option 'prune_ratio'"),
        ({**BASE, "method": "pumer", "reduction": {"prune_ratio": 2}}, r"prune_ratio=2; allowed: a number from 0 to 1"),
        ({**BASE, "vqa_loss": "max"}, r"vqa_loss='max'; allowed: 'sum', 'mean'"),
        ({**BASE, "batch_size": 0}, r"batch_size=0; allowed: from 1"),
        ({**BASE, "warmup": 1.0}, r"warmup=1\.0.*below 1"),
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


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, {"task": 1.0}),
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
    typed = {"pretrained": "p", "data": "folder", "lr_multipliers": "classifier=5,cross_modal=2.5"}
    options = read_options("vilt-vqav2", typed)
    assert options.lr_multipliers == {"classifier": 5, "cross_modal": 2.5}
    assert (options.epochs, options.batch_size * options.accumulate, options.vqa_loss) == (20, 512, "mean")
    assert options.token_reduction()["layers"] == [2, 5, 8]
    changed = read_options("vilt-vqav2", {**typed, "reduction": "layers=2+4,prune_ratio=0.2", "max_steps": 7})
    assert (changed.epochs, changed.max_steps) == (None, 7)
    assert changed.token_reduction() == {"method": "pumer", "layers": [2, 4], "prune_ratio": 0.2}
    assert read_options("vilt-vqav2", {**typed, "method": "none"}).token_reduction() == {"method": "none"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name):
    assert read_options(name, {"pretrained": "p", "data": "folder"}).to_dict().items() >= RECIPES[name].options.items()


@pytest.mark.parametrize(
    ("recipe", "typed", "message"),
    [
        ("vilt-gqa", {}, r"recipe='vilt-gqa'; allowed: 'vilt-vqav2'"),
        (None, {"reduction": "prune"}, r"reduction='prune'; allowed: key=value,key=value"),
        (None, {"method": "pumer", "reduction": "layers=a"}, r"layers must be integers joined by"),
    ],
)
def test_wrong_typing(recipe, typed, message):
    with pytest.raises(ValueError, match=message):
        read_options(recipe, {**BASE, **typed})
