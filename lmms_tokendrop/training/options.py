"""What a training run is told, as one table: the command line, the README and the checks read it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.training.model_classes import TASKS, trainable

POCKET_SCENES = "pocket_scenes"
LARGEST_SEED = 2**32 - 1
KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict}
DISTILLED_WEIGHTS = {"kl": 1.0}
SOFT_WEIGHTS = {"kl": 0.5, "tokens": 0.5, "ratio": 2.0}
"""Weights beside the task's loss: PuMer's and everyone's; of methods that keep all tokens in training (DynamicViT)."""
WORDS = {str: "a text that is not empty", bool: "True, False", dict: "a dict"}


def option(
    default: Any,
    help: str,
    allowed: tuple | Callable[[], tuple] | None = None,
    low: float = 0,
    high: float | None = None,
    below: float | None = None,
    group: str = "Training",
):
    """A field of `TrainingOptions` with its help text and the values that it takes, or a function that lists them."""
    about = {"help": help, "allowed": allowed, "low": low, "high": high, "below": below, "group": group}
    return field(default=default, metadata=about)


def kind(entry: Field) -> type:
    """The type of a field of `TrainingOptions`: str, int, float, bool or dict."""
    return KINDS[entry.type.split("[")[0].split(" ")[0]]


def allowed_values(entry: Field) -> tuple | None:
    """The values that a field of `TrainingOptions` takes; None if they can't be listed."""
    allowed = entry.metadata["allowed"]
    return allowed() if callable(allowed) else allowed


def check_value(entry: Field, value: Any) -> None:
    """Raise a ValueError unless a field of `TrainingOptions` takes a value."""
    about, name, allowed = entry.metadata, entry.name, allowed_values(entry)
    if value is None and entry.default is None:
        return
    if allowed is not None:
        if value not in allowed:
            raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
    elif kind(entry) in (int, float):
        limits = {limit: about[limit] for limit in ("low", "high", "below")}
        checked_number(name, value, whole=kind(entry) is int, **limits)
    elif not isinstance(value, kind(entry)) or value == "":
        raise ValueError(f"{name}={value!r}; allowed: {WORDS[kind(entry)]}")


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, on what, and how. Wrong values raise a ValueError that names what is allowed."""

    architecture: str = option("vilt", "The encoder.", trainable, group="Model")
    method: str = option("none", "How tokens are reduced; `none` is a plain fine-tune.", group="Model")
    reduction: dict[str, Any] | None = option(
        None, "Options of the method, as `key=value,key=value` (lists: `layers=2+5+8`).", group="Model"
    )
    pretrained: str | None = option(
        None, "Checkpoint to start from: folder, Hub id, `pocket` or `pocket-teacher` (bundled).", group="Model"
    )
    new_head: bool = option(False, "Take the encoder from `pretrained` and start the head anew.", group="Model")
    labels: str | None = option(
        None, "Answers of a new vqa head: a file with one a line, or a checkpoint that has them.", group="Model"
    )
    teacher: str | None = option(
        None, "Unreduced fine-tune to distil from: folder, Hub id, `pocket` or `pocket-teacher`.", group="Model"
    )
    task: str = option("vqa", "The task.", TASKS, group="Data")
    data: str | None = option(
        None, "Training data: `pocket_scenes` (drawn), or a folder, a file or a Hub id for `datasets`.", group="Data"
    )
    data_config: str | None = option(None, "Configuration of a Hub data set.", group="Data")
    split: str | None = option(None, "Split of `data`; default: `train`. A file has none.", group="Data")
    eval_data: str | None = option(None, "Evaluation data; default: `data`.", group="Data")
    eval_split: str | None = option(None, "Split of `eval_data`; default: `validation`. A file has none.", group="Data")
    eval_limit: int | None = option(
        None, "Use the first so many rows of the evaluation data; `pocket_scenes`: 1000.", low=1, group="Data"
    )
    columns: dict[str, str] | None = option(
        None, "Names of columns where they differ, as `question=text,image=file`.", group="Data"
    )
    image_root: str | None = option(None, "Folder of images that the data names by file.", group="Data")
    square_images: bool = option(
        False,
        "Resize images, by the processor's filter, to the square that the model was made for; evaluate with "
        "`square_image=True`.",
        group="Data",
    )
    image_size: int | None = option(
        None,
        "Side in pixels of the images that the run is meant for; a checkpoint made for others is an error.",
        low=1,
        group="Data",
    )
    rand_augment: bool = option(
        False, "Change training images by torchvision's RandAugment, 2 operations of magnitude 9.", group="Data"
    )
    negatives: int = option(15, "Captions of other images beside each right one (retrieval).", low=1, group="Data")
    vqa_loss: str = option(
        "sum",
        "vqa: `sum` the binary cross entropies of all labels (ViLT, METER, transformers), or their `mean` (the release "
        "of PuMer).",
        ("sum", "mean"),
        group="Losses",
    )
    kd_weight: float | None = option(
        None,
        "Weight of the divergence from the teacher; default: 1 (dynamicvit: 0.5). 0 beside a recipe: no teacher.",
        group="Losses",
    )
    token_weight: float | None = option(
        None,
        "dynamicvit: weight of the squared difference of kept tokens to the teacher's; default: 0.5.",
        group="Losses",
    )
    ratio_weight: float | None = option(
        None, "dynamicvit: weight of the loss on the share of kept patches; default: 2.", group="Losses"
    )
    max_steps: int | None = option(None, "Optimiser steps; or give `epochs`.", low=1)
    epochs: int | None = option(None, "Passes over the data; or give `max_steps`.", low=1)
    batch_size: int = option(32, "Examples per device and forward pass; retrieval: images.", low=1)
    accumulate: int = option(1, "Forward passes per optimiser step.", low=1)
    learning_rate: float = option(1e-4, "Highest learning rate.")
    lr_multipliers: dict[str, float] | None = option(
        None,
        "Factors on the learning rate of parameters whose names contain a text, as `classifier=10,cross_modal=5`; "
        "`head` is everything outside the encoder.",
    )
    warmup: float = option(
        0.1, "Share of the steps in which the learning rate rises; then it falls linearly to 0.", below=1
    )
    weight_decay: float = option(0.01, "AdamW's weight decay; biases and norms have none.")
    adam_beta2: float = option(0.98, "AdamW's second beta; the first is 0.9.", below=1)
    max_grad_norm: float = option(0.0, "Clip gradients to this norm; 0: never.")
    seed: int = option(0, "Seed of data, new parameters and random choices.", high=LARGEST_SEED)
    bf16: bool = option(False, "Compute in bfloat16 where autocast allows.")
    log_every: int = option(25, "Steps per line of the log.", low=1)
    eval_every: int = option(
        0, "Steps between evaluations, each with a checkpoint, of which the best is the result; 0: none."
    )
    patience: int | None = option(None, "Stop after so many evaluations without a better one.", low=1)
    save_every: int = option(500, "Steps between further checkpoints, for `resume`.", low=1)
    workers: int = option(0, "Processes that prepare data.")
    cpu: bool = option(False, "Stay on the CPU even if there is an accelerator.")

    def __post_init__(self) -> None:
        for entry in fields(self):
            check_value(entry, getattr(self, entry.name))
        self._check_model()
        self._check_data()
        self._check_losses()
        self._check_schedule()

    def token_reduction(self) -> dict[str, Any]:
        """Method and options, checked and complete, as the model's configuration takes them."""
        from lmms_tokendrop.modeling.methods.available import reductions

        config = reductions(self.architecture)
        if self.method not in config.reducers:
            raise ValueError(f"method={self.method!r}; allowed: {', '.join(map(repr, config.reducers))}")
        return config.from_dict({"method": self.method, **(self.reduction or {})}).to_dict()

    def loss_weights(self) -> dict[str, float]:
        """Weight of each part of the loss: `task`, and where they apply `kl`, `tokens`, `ratio`."""
        soft = self.method == "dynamicvit"
        chosen = {"kl": self.kd_weight, "tokens": self.token_weight, "ratio": self.ratio_weight}
        weights = {"task": 1.0}
        for name, default in (SOFT_WEIGHTS if soft else DISTILLED_WEIGHTS).items():
            if self.teacher is not None or name == "ratio":
                weights[name] = default if chosen[name] is None else chosen[name]
        return {name: weight for name, weight in weights.items() if weight}

    def to_dict(self) -> dict[str, Any]:
        """Every option, as JSON has it."""
        return asdict(self)

    def _check_model(self) -> None:
        self.token_reduction()
        if self.pretrained is None:
            raise ValueError("pretrained: name a checkpoint to start from")
        if self.labels is not None and not (self.new_head and self.task == "vqa"):
            raise ValueError("labels: only a new head of vqa takes them; others have theirs. Give new_head too")
        if self.new_head and self.task == "vqa" and self.labels is None:
            raise ValueError("labels: a new head of vqa needs its answers")

    def _check_data(self) -> None:
        for column, name in (self.columns or {}).items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"columns: {column}={name!r}; allowed: the name of a column")
        if self.data is None:
            raise ValueError(f"data: name {POCKET_SCENES!r}, a folder, a file or a Hub id")
        if self.data == POCKET_SCENES:
            if self.task != "vqa":
                raise ValueError(f"data={POCKET_SCENES!r} has questions and answers only; allowed: task='vqa'")
            if self.rand_augment:
                raise ValueError(f"rand_augment: it changes the colours that questions about {POCKET_SCENES!r} ask for")
            for name in ("data_config", "split", "eval_split", "columns", "image_root", "epochs"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r}: {POCKET_SCENES!r} is drawn without end, so it has none"
                    )
        if self.eval_data == POCKET_SCENES and self.task != "vqa":
            raise ValueError(f"eval_data={POCKET_SCENES!r} has questions and answers only; allowed: task='vqa'")
        for name, task, default in (("vqa_loss", "vqa", "sum"), ("negatives", "retrieval", 15)):
            if self.task != task and getattr(self, name) != default:
                raise ValueError(f"{name}={getattr(self, name)!r}: only task {task!r} reads it")
        if not self.eval_every:
            for name in ("eval_data", "eval_split", "eval_limit", "patience"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}={getattr(self, name)!r}: give eval_every too, else nothing is evaluated")

    def _check_losses(self) -> None:
        if self.teacher is None:
            for name in ("kd_weight", "token_weight"):
                if getattr(self, name):
                    raise ValueError(f"{name}={getattr(self, name)!r}: there is no teacher")
        elif not {"kl", "tokens"} & set(self.loss_weights()):
            raise ValueError("kd_weight=0: the teacher would have no effect; leave it out")
        if self.method != "dynamicvit":
            for name in ("token_weight", "ratio_weight"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}={getattr(self, name)!r}: only method 'dynamicvit' has it")

    def _check_schedule(self) -> None:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("max_steps, epochs: give one of them")
        for part, factor in (self.lr_multipliers or {}).items():
            checked_number(f"lr_multipliers: {part}", factor, whole=False, low=0)
