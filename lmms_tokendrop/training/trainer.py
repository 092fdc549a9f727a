"""`transformers.Trainer` with a teacher, several losses and learning rates by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from lmms_tokendrop.training.divergence import FiniteTrainer
from lmms_tokendrop.training.losses import distillation_loss, kept_token_loss
from lmms_tokendrop.training.tasks import TrainingTask

HEAD = "head"


class GroupedTrainer(FiniteTrainer):
    """`Trainer` with learning rates by parameter name.

    Parameters
    ----------
    lr_multipliers
        See `parameter_groups`.
    **kwargs
        As `Trainer` takes them.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(self, *, lr_multipliers: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lr_multipliers = lr_multipliers

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a group of parameters for every learning rate and weight decay."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decaying = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.args.learning_rate, self.lr_multipliers)
            split = [
                {"params": [parameters[name] for name in names], "lr": rate, "weight_decay": decay}
                for rate, parameters in groups.items()
                for decay, names in (
                    (self.args.weight_decay, [name for name in parameters if name in decaying]),
                    (0.0, [name for name in parameters if name not in decaying]),
                )
                if names
            ]
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(split, **options)
        return self.optimizer


class ReductionTrainer(GroupedTrainer):
    """Trains a model on a task, on what its teacher says, and on what its reduction asks for.

    Parameters
    ----------
    task
        Makes scores and losses of logits.
    weights
        Weight of each part of the loss: `task`, `kl`, `tokens`, `ratio`; a part without weight is not computed.
    teacher
        Unreduced model; None: no `kl` and `tokens`.
    **kwargs
        As `GroupedTrainer` takes them.
    """

    def __init__(
        self,
        *,
        task: TrainingTask,
        weights: Mapping[str, float],
        teacher: PreTrainedModel | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task = task
        self.weights = weights
        self.teacher = None if teacher is None else teacher.to(self.args.device)
        # the losses are means over a batch, so the Trainer has to divide them where batches are accumulated
        self.model_accepts_loss_kwargs = False
        self.sums: dict[str, torch.Tensor] = {}
        self.batches = 0

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Add up the weighted parts of the loss in training; in evaluation the task's alone counts."""
        targets = inputs["labels"]
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        if not model.training:
            scores = self.task.scores(model(**inputs).logits)
            loss = self.task.loss(scores, targets)
            return (loss, {"scores": scores}) if return_outputs else loss
        inputs["sample_seeds"] = torch.randint(2**31, inputs["sample_seeds"].shape)
        parts = self.loss_parts(model, inputs, targets)
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0) + part.detach().float()
        self.batches += 1
        return sum(self.weights[name] * part for name, part in parts.items())

    def loss_parts(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compute every part of the loss that has a weight.

        Parameters
        ----------
        model
            The student, as accelerate wrapped it.
        inputs
            Of the model.
        targets
            Of the task.

        Returns
        -------
        dict of str to torch.Tensor
            Scalars, not weighted.
        """
        student = self.accelerator.unwrap_model(model)
        with final_states(student) as states:
            output = model(**inputs)
        scores = self.task.scores(output.logits)
        parts = {"task": self.task.loss(scores, targets)}
        reports = student.reports(output)
        if self.teacher is not None:
            with torch.inference_mode(), self.accelerator.autocast(), final_states(self.teacher) as teacher_states:
                expected = self.task.scores(self.teacher(**inputs).logits).log_softmax(-1)
            if "kl" in self.weights:
                parts["kl"] = distillation_loss(scores, expected.clone())
            if "tokens" in self.weights:
                losses = [
                    kept_token_loss(ours.float(), theirs.clone().float(), kept_patches(report))
                    for ours, theirs, report in zip(states, teacher_states, reports, strict=True)
                ]
                parts["tokens"] = torch.stack(losses).mean()
        if "ratio" in self.weights:
            reducer = student.base_model.token_reducer
            parts["ratio"] = torch.stack([reducer.ratio_loss(report) for report in reports]).mean()
        return parts

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every part of the loss since the last line."""
        if "loss" in logs and self.batches:
            means = torch.stack(list(self.sums.values())) / self.batches
            means = self.accelerator.reduce(means, "mean").tolist()
            logs = {**logs, **{f"{name}_loss": mean for name, mean in zip(self.sums, means, strict=True)}}
            self.sums.clear()
            self.batches = 0
        super().log(logs, start_time)


class AccuracyMeter:
    """Mean accuracy over the batches of an evaluation, as `Trainer` calls it with ``batch_eval_metrics``."""

    def __init__(self, task: TrainingTask) -> None:
        self.task = task
        self.right = 0.0
        self.rows = 0

    def __call__(self, prediction: Any, compute_result: bool) -> dict[str, float]:
        """Take up a batch; after the last one, return the mean."""
        self.right += float(self.task.accuracy(prediction.predictions, prediction.label_ids).sum())
        self.rows += len(prediction.predictions)
        if not compute_result:
            return {}
        result = {"accuracy": self.right / self.rows, "rows": self.rows}
        self.right, self.rows = 0.0, 0
        return result


def parameter_groups(
    model: nn.Module, learning_rate: float, multipliers: Mapping[str, float]
) -> dict[float, dict[str, nn.Parameter]]:
    """Sort parameters by learning rate.

    Parameters
    ----------
    model
        Whose parameters.
    learning_rate
        Without multiplier.
    multipliers
        Factors by a part of the parameter's name; `head` stands for all parameters outside the encoder.

    Returns
    -------
    dict of float to dict of str to nn.Parameter
        The plain learning rate first.

    Raises
    ------
    ValueError
        If a multiplier fits no parameter, or two fit the same.
    """
    groups: dict[float, dict[str, nn.Parameter]] = {learning_rate: {}}
    used = set()
    for name, parameter in model.named_parameters():
        fits = [part for part in multipliers if (_outside_encoder(model, name) if part == HEAD else part in name)]
        if len(fits) > 1:
            raise ValueError(f"lr_multipliers: {' and '.join(map(repr, fits))} both fit the parameter {name!r}")
        used.update(fits)
        rate = learning_rate * multipliers[fits[0]] if fits else learning_rate
        groups.setdefault(rate, {})[name] = parameter
    idle = [part for part in multipliers if part not in used]
    if idle:
        raise ValueError(f"lr_multipliers: no parameter's name contains {', '.join(map(repr, idle))}")
    return groups


def _outside_encoder(model: nn.Module, name: str) -> bool:
    return not name.startswith(f"{model.base_model_prefix}.")


@contextmanager
def outputs_of(module: nn.Module, read: Callable[[Any], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Collect what `read` makes of the output of a module, an entry for each of its passes."""
    found: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: found.append(read(output)))
    try:
        yield found
    finally:
        handle.remove()


def final_states(model: PreTrainedModel) -> AbstractContextManager[list[torch.Tensor]]:
    """Collect the last states `[batch, text + image, channels]` of the encoder, an entry for each of its passes."""
    return outputs_of(model.base_model, sequence)


def sequence(output: ModelOutput) -> torch.Tensor:
    """The last states of an encoder with one stream of tokens, or with a text's and an image's (METER)."""
    if "last_hidden_state" in output:
        return output.last_hidden_state
    return torch.cat([output.text_states, output.image_states], dim=1)


def kept_patches(report: Any) -> torch.Tensor:
    """The patches `[batch, length]` that the last policy of a training pass kept, the CLS excluded."""
    return report.received[0].patches & (report.policies[-1] > 0.5)
