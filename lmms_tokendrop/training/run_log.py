"""The log of a run, and when it is written, evaluated and saved."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class RunLog(TrainerCallback):
    """Writes JSON lines and asks for checkpoints.

    A line has the step, the mean of every loss since the line before, the learning rate, and seconds of the whole run,
    over all its parts; `steps_per_second` leaves evaluations and checkpoints out. A resumed run removes the lines that
    were written after its checkpoint. Every checkpoint begins a new line, so that a resumed run averages over the same
    steps.

    Parameters
    ----------
    path
        The file.
    save_every
        Steps between checkpoints; the last step and every evaluation have one too.
    """

    def __init__(self, path: Path, save_every: int) -> None:
        self.path = path
        self.save_every = save_every
        self.seconds_before = 0.0
        self.started_at = self.timed_from = time.monotonic()
        self.last_step = 0
        self.training = False

    @property
    def seconds(self) -> float:
        """Of the whole run so far."""
        return self.seconds_before + time.monotonic() - self.started_at

    def go_on(self, step: int) -> None:
        """Remove the lines behind a step, and count on from its seconds."""
        lines = [line for line in self.read() if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        self.seconds_before = lines[-1]["seconds"] if lines else 0.0
        self.started_at = self.timed_from = time.monotonic()
        self.last_step = step

    def read(self) -> list[dict[str, Any]]:
        """Return the lines that were written to their end: one without a newline was cut off by what ended the run.

        Raises
        ------
        ValueError
            If another line is not of a log.
        """
        if not self.path.exists():
            return []
        *texts, _ = self.path.read_text().split("\n")
        lines = []
        for number, text in enumerate(texts, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number} is not JSON: {error}; remove it to resume") from error
            if not isinstance(line, dict) or not {"step", "seconds"} <= line.keys():
                raise ValueError(f"{self.path}, line {number} has no step and seconds; remove it to resume")
            lines.append(line)
        return lines

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on where the checkpoint was written."""
        self.training = True
        if state.is_world_process_zero:
            self.go_on(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Tell the data which epoch it is; accelerate does not where batches are skipped or shared out."""
        train_dataloader.dataset.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for an evaluation after the last step, and for checkpoints."""
        last = state.global_step == state.max_steps
        control.should_evaluate |= last and args.eval_strategy != "no"
        if state.global_step % self.save_every == 0 or last:
            control.should_save = True
        if control.should_save or control.should_evaluate:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line; what `Trainer` logs after the last step is left to the results."""
        if not (self.training and state.is_world_process_zero) or "train_runtime" in logs:
            return
        line = {"step": state.global_step, **{name: value for name, value in logs.items() if name != "total_flos"}}
        now = time.monotonic()
        if "loss" in logs and state.global_step > self.last_step:
            line["steps_per_second"] = round((state.global_step - self.last_step) / (now - self.timed_from), 3)
            self.last_step = state.global_step
        line["seconds"] = round(self.seconds, 1)
        self.timed_from = now
        with self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the evaluation out of the speed."""
        self.timed_from = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the checkpoint out of the speed."""
        self.timed_from = time.monotonic()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write no more lines."""
        self.training = False
