"""A training run from options to a folder that lmms-eval loads."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, ProcessorMixin, TrainerState, TrainingArguments, set_seed
from transformers.utils import SAFE_WEIGHTS_NAME, get_available_devices

import lmms_tokendrop
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.training.batches import Collator, Examples
from lmms_tokendrop.training.checkpoints import load_student, load_student_processor, load_teacher
from lmms_tokendrop.training.data import evaluation_rows, training_rows
from lmms_tokendrop.training.divergence import check_parameters
from lmms_tokendrop.training.options import TrainingOptions
from lmms_tokendrop.training.run_log import RunLog
from lmms_tokendrop.training.tasks import TASKS
from lmms_tokendrop.training.trainer import AccuracyMeter, ReductionTrainer, parameter_groups
from lmms_tokendrop.user_errors import check_output_folder

OPTIONS, LOG, RESULTS, CHECKPOINTS = (
    "training_options.json",
    "training_log.jsonl",
    "training_results.json",
    "checkpoints",
)
STATE = "trainer_state.json"
FREE_TO_CHANGE = {"workers", "cpu"}
"""Options that may differ when a run is resumed."""


@dataclass(frozen=True)
class TrainingRun:
    """Everything of a run that is loaded and checked.

    Parameters
    ----------
    options, output
        See `prepare`.
    trainer, processor, log
        With the student and its data; of the student; of the run.
    checkpoint
        Where to go on; None: from the start.
    """

    options: TrainingOptions
    output: Path
    trainer: ReductionTrainer
    processor: ProcessorMixin
    log: RunLog
    checkpoint: str | None

    def train(self) -> dict[str, Any]:
        """Train, then write the model, its processor and the results; return what is in the results file.

        Raises
        ------
        FloatingPointError
            If a loss or a parameter is not finite. Then no model is written.
        """
        trainer = self.trainer
        state = self.finished_state()
        if state is None:
            trainer.train(resume_from_checkpoint=self.checkpoint)
        else:
            self.log.go_on(state.global_step)
            trainer.state = state
            weights = load_file(Path(state.best_model_checkpoint or self.checkpoint) / SAFE_WEIGHTS_NAME)
            trainer.model.load_state_dict(weights)
        check_parameters(trainer.state.global_step, trainer.model)
        results = {
            "options": self.options.to_dict(),
            "token_reduction": trainer.model.config.token_reduction,
            "steps": trainer.state.global_step,
            "seconds": round(self.log.seconds, 1),
            "best_step": trainer.state.best_global_step,
            "evaluation": trainer.evaluate() if self.options.eval_every else None,
            "versions": {
                "lmms_tokendrop": lmms_tokendrop.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }
        if trainer.is_world_process_zero():
            trainer.model.save_pretrained(self.output)
            self.processor.save_pretrained(self.output)
            (self.output / RESULTS).write_text(json.dumps(results, indent=2) + "\n")
        return results

    def finished_state(self) -> TrainerState | None:
        """The state in the checkpoint, if that is of the last step: `Trainer` would make another one."""
        if self.checkpoint is None:
            return None
        state = TrainerState.load_from_json(str(Path(self.checkpoint) / STATE))
        return state if state.global_step == state.max_steps else None


def check_one_gpu(gpus: int) -> None:
    """Raise a ValueError if a process has several GPUs, over which `Trainer` would split batches but no reports."""
    if gpus > 1:
        raise ValueError(
            f"cuda: this process sees {gpus} GPUs and trains on one; start a process for each with `accelerate launch "
            f"--num_processes {gpus} -m lmms_tokendrop.cli train ...`, or show it one with CUDA_VISIBLE_DEVICES=0"
        )


def prepare(options: TrainingOptions, output: Path, resume: bool = False) -> TrainingRun:
    """Load models and data of a new run, or of one that was stopped.

    Parameters
    ----------
    options
        What to do.
    output
        Folder for the model, its processor, the options, the log (JSON lines), the results (JSON) and the checkpoints.
        It is new or empty unless the run is resumed.
    resume
        Continue from the last checkpoint in the folder, or from the start if there is none yet.

    Returns
    -------
    TrainingRun

    Raises
    ------
    ValueError
        If the folder has a run already, or a resumed run has other options; if models or data cannot be loaded or do
        not fit the task or each other.
    """
    arguments = training_arguments(options, output / CHECKPOINTS)
    check_one_gpu(arguments.n_gpu)
    if arguments.process_index == 0:
        check_folder(options, output, resume)
    set_seed(options.seed)
    student = load_student(options)
    teacher = load_teacher(options, student)
    processor = load_student_processor(options, student.config)
    parameter_groups(student, options.learning_rate, options.lr_multipliers or {})
    task = TASKS[options.task](student.config, options)
    side = student.config.image_size if options.square_images else None
    training = training_rows(options, task, arguments.world_size)
    evaluation = evaluation_rows(options, task) if options.eval_every else None
    for rows in filter(None, (training, evaluation)):
        task.check(rows)
    log = RunLog(output / LOG, options.save_every)
    patience = [] if options.patience is None else [EarlyStoppingCallback(options.patience)]
    trainer = ReductionTrainer(
        task=task,
        weights=options.loss_weights(),
        teacher=teacher,
        lr_multipliers=options.lr_multipliers or {},
        model=student,
        args=arguments,
        data_collator=Collator(processor, student.config.max_position_embeddings, side),
        train_dataset=Examples(training, task, options.seed, augment=options.rand_augment),
        eval_dataset=None if evaluation is None else Examples(evaluation, task, 0),
        compute_metrics=AccuracyMeter(task),
        callbacks=[log, *patience],
    )
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        (output / OPTIONS).write_text(json.dumps(options.to_dict(), indent=2) + "\n")
    return TrainingRun(options, output, trainer, processor, log, last_checkpoint(output / CHECKPOINTS))


def check_folder(options: TrainingOptions, output: Path, resume: bool) -> None:
    """Raise a ValueError if a folder is a file, has another run, or a run that was not to be resumed."""
    check_output_folder("output", output)
    if not resume and output.exists() and any(output.iterdir()):
        raise ValueError(f"output={str(output)!r} is not empty; resume the run in it, or name another folder")
    file = output / OPTIONS
    if not file.exists():
        return
    defaults = {entry.name: entry.default for entry in fields(TrainingOptions)}
    saved, given = {**defaults, **read_json_object(file)}, json.loads(json.dumps(options.to_dict()))
    differ = [name for name in given if given[name] != saved[name] and name not in FREE_TO_CHANGE]
    if differ:
        shown = ", ".join(f"{name}={given[name]!r} instead of {saved[name]!r}" for name in differ)
        raise ValueError(f"resume: the run in {str(output)!r} has other options: {shown}")


def last_checkpoint(folder: Path) -> str | None:
    """Find the last checkpoint that was written to its end: the state of the trainer is written last."""
    written = [path.parent for path in folder.glob(f"checkpoint-*/{STATE}")]
    return str(max(written, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if written else None


def training_arguments(options: TrainingOptions, folder: Path) -> TrainingArguments:
    """Say the options in the words of `Trainer`."""
    evaluation = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": options.eval_every,
        "save_steps": options.eval_every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
    }
    on_cpu = options.cpu or get_available_devices() == {"cpu"}
    length = {"max_steps": options.max_steps} if options.max_steps else {"num_train_epochs": options.epochs}
    return TrainingArguments(
        output_dir=str(folder),
        **length,
        **(evaluation if options.eval_every else {"eval_strategy": "no", "save_strategy": "no"}),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        adam_beta2=options.adam_beta2,
        max_grad_norm=options.max_grad_norm,
        seed=options.seed,
        bf16=options.bf16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=options.log_every,
        logging_nan_inf_filter=False,
        batch_eval_metrics=True,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=options.workers,
        restore_callback_states_from_checkpoint=options.patience is not None,
    )
