"""Load exported folders in a fresh interpreter without the package, with the Hub offline, and compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedModel, ProcessorMixin

from lmms_tokendrop.hub import fresh_check
from lmms_tokendrop.hub.fresh_check import example_outputs
from lmms_tokendrop.hub.manifest import Manifest, read_config, verify


class SelfCheckError(RuntimeError):
    """An exported folder does not do what the package's own class does."""


@dataclass(frozen=True)
class Example:
    """A question about one or several images, and what a model makes of it.

    Parameters
    ----------
    images, question
        The input.
    outputs
        What `example_outputs` returned; None where the model has no weights.
    parameters
        Shape of each parameter where the model has no weights, else None.
    """

    images: Sequence[Image.Image]
    question: str
    outputs: dict[str, Any] | None
    parameters: dict[str, list[int]] | None = None


def run_example(
    model: PreTrainedModel, processor: ProcessorMixin, images: Sequence[Image.Image], question: str
) -> Example:
    """Run a model on an example and check that it reduces what its configuration says.

    Raises
    ------
    SelfCheckError
        If a method is configured and every layer received every image token.
    """
    outputs = example_outputs(model, processor, images, question)
    method = model.config.token_reduction["method"]
    reduced = [
        sum(layers) / len(layers) < full for layers, full in zip(outputs["tokens"], outputs["full"], strict=True)
    ]
    if method != "none" and not all(reduced):
        raise SelfCheckError(f"{method} left all image tokens of the example with {model.config.token_reduction}")
    return Example(images, question, outputs)


def parameter_shapes(model: PreTrainedModel) -> dict[str, list[int]]:
    """Name and shape of each parameter and buffer that a checkpoint has."""
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def self_check(folders: dict[Path, Example]) -> None:
    """Check exported folders and write the outcome into their records; see :func:`run_fresh`.

    Raises
    ------
    ValueError
        If a file was changed since the export.
    SelfCheckError
        If a folder fails.
    """
    for folder in folders:
        verify(folder)
    run_fresh(folders)
    for folder, example in folders.items():
        how = "meta" if example.outputs is None else "weights"
        Manifest.read(folder).checked(how).write(folder)


def run_fresh(folders: dict[Path, Example]) -> None:
    """Load exported folders, all in one fresh interpreter, and compare.

    The interpreter refuses to import the package, has the Hub's client offline (``HF_HUB_OFFLINE=1``), and loads each
    folder through every class of its ``auto_map``. Tokens per layer must be those of the package's own class, and
    logits within 1e-4, relative and absolute; in half precision, where kernels round differently, within 2e-2.

    Parameters
    ----------
    folders
        What the package's class made of the example, for each folder.

    Raises
    ------
    SelfCheckError
        If a folder fails; the message is the interpreter's last line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            write_job(folder, example, Path(scratch) / str(number))
            for number, (folder, example) in enumerate(folders.items())
        ]
        path = Path(scratch) / "jobs.json"
        path.write_text(json.dumps(jobs))
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(Path(scratch) / "modules")}
        finished = subprocess.run(
            [sys.executable, "-P", fresh_check.__file__, str(path)],
            env=environment,
            cwd=scratch,
            check=False,
            capture_output=True,
            text=True,
        )
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or ["no message"]
        raise SelfCheckError(f"self-check in a fresh interpreter: {lines[-1]}")


def write_job(folder: Path, example: Example, scratch: Path) -> dict[str, Any]:
    """Write what the fresh interpreter reads about a folder.

    Parameters
    ----------
    folder
        Exported folder.
    example
        What the package's class made of the example.
    scratch
        New folder for the images and the logits.

    Returns
    -------
    dict
        What `fresh_check.check_folder` takes.
    """
    scratch.mkdir()
    config = read_config(folder)
    job = {"folder": str(folder.resolve()), "auto_map": config["auto_map"], "model_type": config["model_type"]}
    if example.outputs is None:
        return {**job, "parameters": example.parameters}
    images = []
    for number, image in enumerate(example.images):
        images.append(str(scratch / f"{number}.png"))
        image.save(images[-1])
    save_file({"logits": example.outputs["logits"].contiguous()}, scratch / "logits.safetensors")
    return {
        **job,
        "images": images,
        "question": example.question,
        "logits": str(scratch / "logits.safetensors"),
        "tokens": example.outputs["tokens"],
    }
