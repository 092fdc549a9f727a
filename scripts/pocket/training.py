"""Training of the pocket models on `transformers.Trainer`: schedule, log, checkpoints, export."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback, TrainingArguments

from lmms_tokendrop.modeling.core.loading import use_public_keys
from lmms_tokendrop.training.divergence import check_numbers
from lmms_tokendrop.training.trainer import GroupedTrainer

WARMUP_STEPS = 150
LOG_EVERY = 25
VALIDATE_EVERY = 250
CHECKPOINT_SECONDS = 300


def learning_rate_factor(step: int, max_steps: int) -> float:
    """Linear warm-up, then a cosine down to 2 %.

    Parameters
    ----------
    step
        Steps made.
    max_steps
        Length of the run.

    Returns
    -------
    float
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max_steps)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.98 * cosine + 0.02)


class Curriculum(Protocol):
    """What a model is trained on at each step."""

    def stream(self, seed: int, start: int) -> IterableDataset[dict[str, Any]]:
        """Endless batches from a step on."""

    def stage_name(self, step: int) -> str:
        """Name of the stage that a step, the number of steps already made, belongs to."""

    def task_name(self) -> str:
        """Name of the stage that is the task itself."""

    def validation(self, stage_name: str) -> Iterable[tuple[dict[str, Any], list[str]]]:
        """Batches like those of a stage that are never trained on, with the type of every question."""


@torch.no_grad()
def validate(model: Any, batches: Iterable[tuple[dict[str, Any], list[str]]]) -> dict[str, Any]:
    """Measure the share of right answers on scenes that are never trained on.

    Parameters
    ----------
    model
        What to measure; its `hits` tells which questions of a batch it answers right.
    batches
        From `Curriculum.validation`.

    Returns
    -------
    dict
        `accuracy`, `questions` and `by_type`.
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for batch, types in batches:
        with torch.autocast("cpu", torch.bfloat16):
            hits = model.hits(batch)
        total.update(types)
        right.update(kind for kind, hit in zip(types, hits.tolist(), strict=True) if hit)
    by_type = {kind: round(right[kind] / total[kind], 3) for kind in sorted(total)}
    questions = sum(total.values())
    return {"accuracy": round(sum(right.values()) / questions, 4), "questions": questions, "by_type": by_type}


class TrainingLog(TrainerCallback):
    """Write JSON lines and ask for checkpoints by the clock.

    Parameters
    ----------
    path
        Log file; a resumed run appends to it.
    model
        What to validate.
    curriculum
        Names the stages, and has the scenes to validate on.
    start
        Steps already made; later lines, written after the checkpoint that is resumed, are removed.
    """

    def __init__(self, path: Path, model: Any, curriculum: Curriculum, start: int) -> None:
        self.path = path
        self.model = model
        self.curriculum = curriculum
        self.sums: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.saved_at = self.started_at = time.monotonic()
        lines = path.read_text().splitlines() if path.exists() else []
        lines = [line for line in lines if json.loads(line)["step"] <= start]
        path.write_text("".join(f"{line}\n" for line in lines))
        self.seconds_before = json.loads(lines[-1])["seconds"] if lines else 0.0

    def add(self, parts: dict[str, torch.Tensor]) -> None:
        """Take up the losses of one step.

        Parameters
        ----------
        parts
            From the model.
        """
        for name, value in parts.items():
            self.sums[name] += float(value)
            self.counts[name] += 1

    def write(self, entry: dict[str, Any]) -> None:
        """Append one line.

        Parameters
        ----------
        entry
            What to write; `seconds` of training, over all resumed parts, is added.
        """
        seconds = self.seconds_before + time.monotonic() - self.started_at
        with self.path.open("a") as file:
            file.write(json.dumps({**entry, "seconds": round(seconds, 1)}, allow_nan=False) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the log line, validate, and ask for a checkpoint when it is time."""
        step = state.global_step
        if step % LOG_EVERY == 0 or step == state.max_steps:
            means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
            check_numbers(step, means)
            self.write({"step": step, "stage": self.curriculum.stage_name(step - 1), **means})
            self.sums.clear()
            self.counts.clear()
        if step % VALIDATE_EVERY == 0 or step == state.max_steps:
            self.model.eval()
            for name in dict.fromkeys([self.curriculum.stage_name(step - 1), self.curriculum.task_name()]):
                result = validate(self.model, self.curriculum.validation(name))
                self.write({"step": step, "validation": name, **result})
            self.model.train()
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS or step == state.max_steps:
            self.saved_at = time.monotonic()
            control.should_save = True


class PocketTrainer(GroupedTrainer):
    """`Trainer` for a model that returns its loss and the parts of it, and for ready-made batches.

    Parameters
    ----------
    log
        Receives the losses of every step.
    stream
        Source of batches.
    **kwargs
        As `GroupedTrainer` takes them.
    """

    def __init__(self, *, log: TrainingLog, stream: IterableDataset[dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(train_dataset=stream, callbacks=[log], **kwargs)
        self.log_file = log

    def get_train_dataloader(self) -> DataLoader:
        """Hand out the ready-made batches one by one."""
        own = torch.Generator()  # else the draws of a resumed run would differ
        return DataLoader(self.train_dataset, batch_size=None, generator=own)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Take the sum of all losses and note its parts."""
        loss, parts = model(**inputs)
        self.log_file.add(parts)
        return (loss, parts) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm up, then follow a cosine."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: learning_rate_factor(step, num_training_steps)
        )
        return self.lr_scheduler


def make_trainer(
    model: Any,
    folder: Path,
    curriculum: Curriculum,
    *,
    seed: int,
    start: int,
    max_steps: int,
    learning_rate: float,
    lr_multipliers: Mapping[str, float],
    bf16: bool,
) -> PocketTrainer:
    """Put a trainer together.

    Parameters
    ----------
    model
        What to train.
    folder
        Where checkpoints and the log go.
    curriculum
        What it is trained on.
    seed
        Seed of the run.
    start
        Steps already made, 0 for a new run.
    max_steps
        Steps in all.
    learning_rate
        Highest learning rate.
    lr_multipliers
        Factors on it; see `parameter_groups`.
    bf16
        Compute in bfloat16 where autocast allows.

    Returns
    -------
    PocketTrainer
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=1,
        learning_rate=learning_rate,
        adam_beta2=0.98,
        weight_decay=0.02,
        max_grad_norm=1.0,
        bf16=bf16,
        use_cpu=True,
        seed=seed,
        save_strategy="no",
        save_total_limit=2,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
        dataloader_pin_memory=False,
    )
    log = TrainingLog(folder / "training_log.jsonl", model, curriculum, start)
    stream = curriculum.stream(seed, start)
    return PocketTrainer(model=model, args=arguments, log=log, stream=stream, lr_multipliers=lr_multipliers)


def export(model: PreTrainedModel, processor: ProcessorMixin, folder: Path, log: Path) -> None:
    """Write the model in half precision, its processor, and last the training log.

    Parameters
    ----------
    model
        Trained model.
    processor
        Its processor.
    folder
        Where to write.
    log
        Training log to copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = copy.deepcopy(model).half()
    for name in saved.config.sub_configs:
        getattr(saved.config, name).dtype = saved.dtype
    use_public_keys(saved)
    saved.save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    shutil.copyfile(log, folder / "training_log.jsonl")
