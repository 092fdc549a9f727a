"""Training of the pocket model on `transformers.Trainer`: schedule, log, checkpoints, export."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from lmms_tokendrop.pocket.curriculum import STAGES, VALIDATION_SEEDS, TrainingStream, scene_batch, stage_at
from lmms_tokendrop.pocket.llava_next import build_processor
from lmms_tokendrop.pocket.losses import PocketTrainingModel

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


@torch.no_grad()
def validate(model: PocketTrainingModel, stage_name: str, batches: int = 4, images: int = 24) -> dict[str, Any]:
    """Measure the share of right answers on scenes that are never trained on.

    Parameters
    ----------
    model
        What to measure.
    stage_name
        Name of the stage whose kind of scenes is used.
    batches, images
        How many batches of how many pictures.

    Returns
    -------
    dict
        `accuracy`, `questions` and `by_type`.
    """
    stage = next(entry for entry in STAGES if entry.name == stage_name)
    rng = np.random.default_rng([VALIDATION_SEEDS, 0])
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for _ in range(batches):
        batch, types = scene_batch(rng, stage, images, independent=True)
        with torch.autocast("cpu", torch.bfloat16):
            guesses = model.logits(batch)[batch["guide_rows"], batch["guide_positions"]].argmax(-1)
        hits = guesses == batch["labels"][batch["guide_rows"], batch["guide_positions"] + 1]
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
    start
        Steps already made; later lines, written after the checkpoint that is resumed, are removed.
    """

    def __init__(self, path: Path, model: PocketTrainingModel, start: int) -> None:
        self.path = path
        self.model = model
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
            From `PocketTrainingModel.forward`.
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
            file.write(json.dumps({**entry, "seconds": round(seconds, 1)}) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the log line, validate, and ask for a checkpoint when it is time."""
        step = state.global_step
        if step % LOG_EVERY == 0 or step == state.max_steps:
            means = {name: round(self.sums[name] / self.counts[name], 4) for name in self.sums}
            self.write({"step": step, "stage": stage_at(step - 1).name, **means})
            self.sums.clear()
            self.counts.clear()
        if step % VALIDATE_EVERY == 0 or step == state.max_steps:
            self.model.eval()
            names = dict.fromkeys([stage_at(step - 1).name, STAGES[-1].name])
            for name in names:
                self.write({"step": step, "validation": name, **validate(self.model, name)})
            self.model.train()
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS or step == state.max_steps:
            self.saved_at = time.monotonic()
            control.should_save = True


class PocketTrainer(Trainer):
    """`Trainer` for `PocketTrainingModel` and ready-made batches.

    Parameters
    ----------
    log
        Receives the losses of every step.
    stream
        Source of batches.
    """

    def __init__(self, *, log: TrainingLog, stream: TrainingStream, **kwargs: Any) -> None:
        super().__init__(train_dataset=stream, callbacks=[log], **kwargs)
        self.log_file = log

    def get_train_dataloader(self) -> DataLoader:
        """Hand out the ready-made batches one by one."""
        return DataLoader(self.train_dataset, batch_size=None)

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
    model: PocketTrainingModel, folder: Path, *, seed: int, start: int, max_steps: int, learning_rate: float, bf16: bool
) -> PocketTrainer:
    """Put a trainer together.

    Parameters
    ----------
    model
        What to train.
    folder
        Where checkpoints and the log go.
    seed
        Seed of the run.
    start
        Steps already made, 0 for a new run.
    max_steps
        Steps in all.
    learning_rate
        Highest learning rate.
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
    log = TrainingLog(folder / "training_log.jsonl", model, start)
    return PocketTrainer(model=model, args=arguments, log=log, stream=TrainingStream(seed, start))


def export(model: PocketTrainingModel, folder: Path, log: Path) -> None:
    """Write the stock model in half precision, its processor, and the training log.

    Parameters
    ----------
    model
        Trained model.
    folder
        Where to write.
    log
        Training log to copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stock = copy.deepcopy(model.model).half()
    stock.set_attn_implementation("sdpa")
    stock.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    shutil.copyfile(log, folder / "training_log.jsonl")
