"""Load exported folders where `lmms_tokendrop` can't be imported: `python fresh_check.py JOBS.json`.

This file runs by itself and imports nothing of the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

PACKAGE = "lmms_tokendrop"


class Blocker(MetaPathFinder):
    """Makes the package impossible to import, and remembers every attempt."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuse the package; leave everything else to the other finders."""
        if fullname.split(".")[0] == PACKAGE:
            self.attempts.append(fullname)
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    def check(self) -> None:
        """Fail if the package was imported, or if anything tried to."""
        present = [name for name in sys.modules if name.split(".")[0] == PACKAGE]
        if present or self.attempts:
            raise ImportError(f"the exported code imports {', '.join([*present, *self.attempts])}")


def example_outputs(model: Any, processor: Any, images: Sequence[Any], question: str) -> dict[str, Any]:
    """Run a model on a question about one or several images.

    Parameters
    ----------
    model
        A reduced model.
    processor
        Its processor.
    images
        PIL images.
    question
        Text.

    Returns
    -------
    dict
        ``logits`` as a float32 tensor; ``tokens``, the image tokens that each layer received, per image; ``full``,
        those of the unreduced model; ``report``, that of the first image.
    """
    import torch

    text = question
    if hasattr(processor, "image_token"):
        text = f"{processor.image_token}\n{question}"
        if processor.chat_template is not None:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=list(images), text=[text], return_tensors="pt").to(model.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if len(images) > 1:
        for name in ("pixel_values", "pixel_mask"):
            if name in inputs:
                inputs[name] = inputs[name].unsqueeze(0)
    with torch.inference_mode():
        output = model(**inputs)
    reports = model.reports(output)
    tokens = [[layer[0] for layer in report.visual_tokens_per_layer] for report in reports]
    full = [report.full_visual_tokens[0] for report in reports]
    return {"logits": output.logits.float(), "tokens": tokens, "full": full, "report": reports[0]}


def check_folder(job: dict[str, Any]) -> None:
    """Load a folder through each of its auto classes and compare with what the package's own classes gave.

    Parameters
    ----------
    job
        What `lmms_tokendrop.hub.self_check` wrote: ``folder``, ``auto_map``, ``model_type``, and either ``parameters``
        (names and shapes) or ``images``, ``question``, ``logits`` and ``tokens``.
    """
    import transformers
    from PIL import Image
    from safetensors.torch import load_file

    folder = job["folder"]
    for auto_class, reference in job["auto_map"].items():
        where = f"{auto_class}.from_pretrained({folder!r}, trust_remote_code=True)"
        loader = getattr(transformers, auto_class)
        if auto_class == "AutoConfig":
            config = loader.from_pretrained(folder, trust_remote_code=True)
            expect(where, "model_type", type(config).model_type, job["model_type"])
            continue
        if "parameters" in job:
            model = on_meta_device(loader, folder)
            shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
            expect(where, "parameters", shapes, job["parameters"])
        else:
            model = loader.from_pretrained(folder, trust_remote_code=True, dtype="auto")
            processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
            images = [Image.open(path) for path in job["images"]]
            outputs = example_outputs(model, processor, images, job["question"])
            expect(where, "tokens per layer", outputs["tokens"], job["tokens"])
            expect_close(where, outputs["logits"], load_file(job["logits"])["logits"], str(model.dtype))
        expect(where, "class", type(model).__name__, reference.split(".")[1])
        expect(where, "model_type", type(model.config).model_type, job["model_type"])


def on_meta_device(loader: Any, folder: str) -> Any:
    """Build a model without weights."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    with torch.device("meta"):
        return loader.from_config(config, trust_remote_code=True)


def expect(where: str, what: str, found: Any, wanted: Any) -> None:
    """Fail unless two values are equal."""
    if found != wanted:
        raise ValueError(f"{where}: {what} {str(found)[:300]}; expected {str(wanted)[:300]}")


def expect_close(where: str, found: Any, wanted: Any, dtype: str) -> None:
    """Fail unless logits agree as far as the dtype lets them."""
    import torch

    tolerance = 1e-4 if dtype == "torch.float32" else 2e-2
    if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance):
        gap = (found - wanted).abs().max().item() if found.shape == wanted.shape else "another shape"
        raise ValueError(f"{where}: logits differ from those of the package's class ({gap})")


def main(arguments: Sequence[str]) -> None:
    """Check every folder of a jobs file and print its name; the first failure ends the process with its traceback."""
    blocker = Blocker()
    sys.meta_path.insert(0, blocker)
    for job in json.loads(Path(arguments[0]).read_text()):
        check_folder(job)
        blocker.check()
        print(job["folder"])


if __name__ == "__main__":
    main(sys.argv[1:])
