"""Time of one optimisation step with PuMer's distillation, of reduced models beside the unreduced one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from lmms_tokendrop.bench.encoder_variants import CPU, FULL, MeasuredEncoder, Variant
from lmms_tokendrop.bench.throughput_protocol import Spread
from lmms_tokendrop.bench.timing import clock_of, seconds_in_turn
from lmms_tokendrop.training.losses import distillation_loss

TEACHER = "teacher"


def measure_training_step(
    architecture: MeasuredEncoder,
    variants: Sequence[Variant],
    dtype: torch.dtype,
    batch_size: int,
    steps: int,
    say: Callable[[str], None] = print,
    device: torch.device = CPU,
) -> list[dict[str, Any]]:
    """Time steps of all models and forward passes of the unreduced teacher, in turn.

    A step is the forward pass, the task's loss and the KL divergence to the teacher's answers, the backward pass, and
    fused AdamW. The teacher's forward pass, the same for all models, is timed apart.

    Parameters
    ----------
    architecture
        The encoder.
    variants
        Its variants; `full` is among them.
    dtype
        Of weights and images.
    batch_size
        Of all models.
    steps
        Timed steps of each model, after a warm-up.
    say
        Told of every result.
    device
        Where models and images are.

    Returns
    -------
    list of dict
        Per variant: `name`, `batch_size`, `steps`, `step_seconds` and `teacher_seconds` (spread), and
        `speed_up` and `speed_up_with_teacher`, of a step over that of `full` within a round (spread).
    """
    inputs = architecture.inputs(batch_size, dtype, device)
    teacher = architecture.build(architecture.variant(FULL), dtype, device)
    with torch.no_grad():
        answers = teacher(**inputs).logits.log_softmax(-1)
    runs: dict[str, Callable[[], None]] = {TEACHER: partial(teach, teacher, inputs)}
    for variant in variants:
        student = architecture.build(variant, dtype, device).train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)
        runs[variant.name] = partial(distil, student, optimizer, inputs, answers)
    times = seconds_in_turn(runs, steps, clock_of(device))
    rows = []
    for variant in variants:
        rounds = list(zip(times[variant.name], times[FULL], times[TEACHER], strict=True))
        row = {
            "name": variant.name,
            "batch_size": batch_size,
            "steps": steps,
            "step_seconds": asdict(Spread.of(times[variant.name])),
            "teacher_seconds": asdict(Spread.of(times[TEACHER])),
            "speed_up": asdict(Spread.of([full / step for step, full, _ in rounds])),
            "speed_up_with_teacher": asdict(Spread.of([(full + t) / (step + t) for step, full, t in rounds])),
        }
        say(f"{variant.name}: {row['step_seconds']['median']:.2f} s a training step")
        rows.append(row)
    return rows


@torch.no_grad()
def teach(teacher: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> None:
    """Run the teacher once."""
    teacher(**inputs)


def distil(
    student: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    inputs: dict[str, torch.Tensor],
    answers: torch.Tensor,
) -> None:
    """Do one optimisation step.

    Parameters
    ----------
    student
        In train mode.
    optimizer
        Of its parameters.
    inputs
        A batch.
    answers
        `[batch, labels]`, the teacher's logarithms of probabilities, which are the soft labels too.
    """
    output = student(**inputs, labels=answers.exp())
    (output.loss + distillation_loss(output.logits, answers)).backward()
    optimizer.step()
    optimizer.zero_grad()
