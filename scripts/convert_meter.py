"""Convert a METER checkpoint (the public Lightning `.ckpt`, or PuMer's) to a folder that `MeterForX` loads."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel

from lmms_tokendrop.json_files import read_json
from lmms_tokendrop.modeling.architectures.modeling_meter import (
    MeterConfig,
    MeterForImageAndTextRetrieval,
    MeterForImagesAndTextClassification,
    MeterForPreTraining,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
)
from lmms_tokendrop.modeling.architectures.processing_meter import meter_processor
from lmms_tokendrop.user_errors import one_line_errors

Weights = dict[str, torch.Tensor]

TASKS: dict[str, type[PreTrainedModel]] = {
    "pretraining": MeterForPreTraining,
    "vqav2": MeterForQuestionAnswering,
    "snli-ve": MeterForVisualEntailment,
    "nlvr2": MeterForImagesAndTextClassification,
    "retrieval": MeterForImageAndTextRetrieval,
}
CLASSIFIERS = {"vqav2": "vqa_classifier", "snli-ve": "(?:snli|ve)_classifier", "nlvr2": "nlvr2_classifier"}
"""Name of each task's classifier; PuMer calls that of SNLI-VE by the second one."""

NLVR2_LABELS = ("False", "True")

UNUSED = (
    r"text_transformer\.embeddings\.position_ids",
    r"text_transformer\.pooler\..*",
    r"vit_model\.positional_embedding",
    r"vit_model\.ln_final\..*",
)
"""What METER's files have and METER doesn't use: RoBERTa's buffer and pooler, what is left of CLIP's text tower."""

VISION = r"vit_model\.visual\."
BLOCK = VISION + r"transformer\.resblocks\.(\d+)\."
RENAMED = (
    (r"text_transformer\.(.*)", r"meter.text_model.\1"),
    (VISION + r"class_embedding", "meter.vision_model.embeddings.class_embedding"),
    (VISION + r"positional_embedding", "meter.vision_model.embeddings.position_embedding.weight"),
    (VISION + r"conv1\.weight", "meter.vision_model.embeddings.patch_embedding.weight"),
    (VISION + r"ln_(pre|post)\.(.*)", r"meter.vision_model.\1_layernorm.\2"),
    (BLOCK + r"attn\.in_proj_(weight|bias)", r"meter.vision_model.layers.\1.self_attn.in_proj.\2"),
    (BLOCK + r"attn\.out_proj\.(.*)", r"meter.vision_model.layers.\1.self_attn.out_proj.\2"),
    (BLOCK + r"ln_([12])\.(.*)", r"meter.vision_model.layers.\1.layer_norm\2.\3"),
    (BLOCK + r"mlp\.c_fc\.(.*)", r"meter.vision_model.layers.\1.mlp.fc1.\2"),
    (BLOCK + r"mlp\.c_proj\.(.*)", r"meter.vision_model.layers.\1.mlp.fc2.\2"),
    (r"(cross_modal_(?:text|image)_(?:transform|layers|pooler)\..*)", r"meter.\1"),
    (r"(token_type_embeddings\.weight)", r"meter.\1"),
)
HEADS = (
    (r"mlm_score\.bias", "mlm_score.decoder.bias", {"pretraining"}),
    (r"(mlm_score\..*)", r"\1", {"pretraining"}),
    (r"itm_score\.fc\.(.*)", r"itm_score.\1", {"pretraining"}),
    (r"(rank_output\..*)", r"\1", {"retrieval"}),
    *((name + r"\.(.*)", r"classifier.\1", {task}) for task, name in CLASSIFIERS.items()),
)
"""Pattern, name here, and the tasks whose model has it."""


@dataclass
class Conversion:
    """Weights under this project's names, and what else was done.

    Parameters
    ----------
    weights
        By parameter.
    dropped
        Keys of the file that the model has no use for.
    changed
        What was added or altered, in words.
    """

    weights: Weights = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


class Ignored:
    """Stands for whatever else a checkpoint holds, such as the states of Lightning's callbacks; does nothing."""

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


def read_weights(path: Path) -> Weights:
    """Read a checkpoint without running its code; Lightning keeps the weights under `state_dict`.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or if it is no checkpoint or a broken one.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(Ignored, name) for name in others]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, pickle.UnpicklingError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint, or a broken one: {error}") from error
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ValueError(f"{path} holds other things than tensors by name; allowed: weights, alone or as `state_dict`")
    return weights


def public_names(weights: Weights) -> Weights:
    """The same weights under the names of METER's own files, given those or PuMer's.

    PuMer's have the prefix `meter.`, and CLIP's tower without `visual.`.
    """
    names = {name.removeprefix("meter."): tensor for name, tensor in weights.items()}
    if any(name.startswith("vit_model.visual.") for name in names):
        return names
    return {re.sub(r"^vit_model\.", "vit_model.visual.", name): tensor for name, tensor in names.items()}


def convert(weights: Weights, task: str, initialise_head: bool = False, image_size: int | None = None) -> Conversion:
    """Rename a checkpoint's weights for the model of a task.

    Parameters
    ----------
    weights
        Of METER's or of PuMer's files.
    task
        Key of `TASKS`.
    initialise_head
        Whether the file is that of pre-training, the start of fine-tuning: NLVR2's second image gets a copy of the
        first one's token type, and the score of retrieval the row of `itm_score` for texts that fit.
    image_size
        Side in pixels to which positions are interpolated; None: as they are.

    Raises
    ------
    ValueError
        If a key is none of METER's.
    """
    found, unknown = Conversion(), []
    weights = public_names(weights)
    for name, tensor in weights.items():
        new_name, kept = renamed(name, task)
        if new_name is None:
            unknown.append(name)
        elif not kept:
            found.dropped.append(name)
        elif ".in_proj." in new_name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                found.weights[new_name.replace("in_proj", f"{part}_proj")] = rows
        else:
            found.weights[new_name] = tensor
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown[:5])} ({len(unknown)} in all); is this a METER checkpoint?")
    if initialise_head:
        start_fine_tuning(found, weights, task)
    if image_size is not None:
        resize_positions(found, image_size)
    return found


def renamed(name: str, task: str) -> tuple[str | None, bool]:
    """The name of a weight here, None if it is unknown, and whether the model of a task has it."""
    if any(re.fullmatch(pattern, name) for pattern in UNUSED):
        return name, False
    for pattern, new_name in RENAMED:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, new_name, name), True
    for pattern, new_name, tasks in HEADS:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, new_name, name), task in tasks
    return None, False


def start_fine_tuning(found: Conversion, weights: Weights, task: str) -> None:
    """Add what a task's model has and that of pre-training has not, but for classifiers."""
    types = "meter.token_type_embeddings.weight"
    if task == "nlvr2" and len(found.weights[types]) == 2:
        found.weights[types] = torch.cat([found.weights[types], found.weights[types][1:]])
        found.changed.append(f"{types}: a copy of row 1 for the second image")
    if task == "retrieval" and "rank_output.weight" not in found.weights:
        for part in ("weight", "bias"):
            if f"itm_score.fc.{part}" not in weights:
                raise ValueError(f"no itm_score.fc.{part} to start retrieval from")
            found.weights[f"rank_output.{part}"] = weights[f"itm_score.fc.{part}"][1:]
        found.changed.append("rank_output: row 1 of itm_score")


def resize_positions(found: Conversion, image_size: int) -> None:
    """Interpolate the positions of patches (bicubic) to the grid of another image size; that of CLS stays."""
    name = "meter.vision_model.embeddings.position_embedding.weight"
    patch = found.weights["meter.vision_model.embeddings.patch_embedding.weight"].shape[-1]
    if image_size % patch:
        raise ValueError(f"image_size={image_size} is not a multiple of the patch size, {patch}")
    positions, side = found.weights[name], grid_side(len(found.weights[name]))
    grid = positions[1:].T.reshape(1, -1, side, side).float()
    grid = torch.nn.functional.interpolate(grid, size=(image_size // patch,) * 2, mode="bicubic")
    found.weights[name] = torch.cat([positions[:1], grid[0].flatten(1).T.to(positions.dtype)])
    found.changed.append(f"{name}: from {side} to {image_size // patch} patches a side")


def grid_side(positions: int) -> int:
    """Patches a side of a square grid, with the number of its positions, CLS included."""
    side = math.isqrt(max(positions - 1, 0))
    if side**2 != positions - 1:
        raise ValueError(f"the checkpoint has {positions} positions of images, which are no square grid and a CLS")
    return side


def config_of(weights: Weights, task: str, labels: list[str] | None, head_size: int) -> MeterConfig:
    """Read the sizes of a model off its converted weights; attention heads have `head_size` channels."""

    def depth(prefix: str) -> int:
        numbers = [int(found[1]) for name in weights if (found := re.match(re.escape(prefix) + r"(\d+)\.", name))]
        return 1 + max(numbers, default=-1)

    def shape(name: str) -> torch.Size:
        if name not in weights:
            raise ValueError(f"the checkpoint has no {name}, from which sizes are read")
        return weights[name].shape

    text, vision, cross = "meter.text_model.", "meter.vision_model.", "meter.cross_modal_text_layers."
    words, patches = (
        shape(f"{text}embeddings.word_embeddings.weight"),
        shape(f"{vision}embeddings.patch_embedding.weight"),
    )
    side = grid_side(shape(f"{vision}embeddings.position_embedding.weight")[0])
    width = shape("meter.cross_modal_text_transform.weight")[0]
    if any(size % head_size for size in (words[1], patches[0], width)):
        raise ValueError(f"head_size={head_size} does not divide all of {words[1]}, {patches[0]} and {width} channels")
    config = MeterConfig(
        text_config={
            "vocab_size": words[0],
            "hidden_size": words[1],
            "num_hidden_layers": depth(f"{text}encoder.layer."),
            "num_attention_heads": words[1] // head_size,
            "intermediate_size": shape(f"{text}encoder.layer.0.intermediate.dense.weight")[0],
            "max_position_embeddings": shape(f"{text}embeddings.position_embeddings.weight")[0],
            "type_vocab_size": shape(f"{text}embeddings.token_type_embeddings.weight")[0],
        },
        vision_config={
            "hidden_size": patches[0],
            "num_hidden_layers": depth(f"{vision}layers."),
            "num_attention_heads": patches[0] // head_size,
            "intermediate_size": shape(f"{vision}layers.0.mlp.fc1.weight")[0],
            "image_size": side * patches[-1],
            "patch_size": patches[-1],
        },
        hidden_size=width,
        num_hidden_layers=depth(cross),
        num_attention_heads=width // head_size,
        intermediate_size=shape(f"{cross}0.intermediate.dense.weight")[0],
        modality_type_vocab_size=shape("meter.token_type_embeddings.weight")[0],
        num_labels={"snli-ve": 3, "nlvr2": 2}.get(task, len(labels or ()) or 2),
    )
    names = NLVR2_LABELS if task == "nlvr2" else labels
    if names is not None:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    return config


def build(found: Conversion, config: MeterConfig, task: str, initialise_head: bool = False) -> PreTrainedModel:
    """The model of a task with the converted weights.

    Raises
    ------
    ValueError
        If a weight is missing, unexpected or of another shape.
    """
    model = TASKS[task](config)
    expected = model.state_dict()
    missing = sorted(set(expected) - set(found.weights))
    new = [name for name in missing if initialise_head and name.startswith("classifier.")]
    unexpected = sorted(set(found.weights) - set(expected))
    shapes = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in found.weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    wrong = {"missing": sorted(set(missing) - set(new)), "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{kind}: {', '.join(names[:5])} ({len(names)} in all)" for kind, names in wrong.items() if names]
    if problems:
        hint = (
            "; to start fine-tuning from pre-training, pass --initialise-head"
            if "classifier.0.weight" in missing
            else ""
        )
        raise ValueError(f"the checkpoint does not fit {type(model).__name__}: {'; '.join(problems)}{hint}")
    model.load_state_dict(found.weights, strict=not new)
    found.changed.extend(f"{name}: new, random" for name in new)
    return model


def read_labels(path: Path) -> list[str]:
    """Answers in the order of their numbers: a JSON list, a JSON object from answer to number, or a line each."""
    labels = read_json(path) if path.suffix == ".json" else path.read_text(encoding="utf-8").splitlines()
    if isinstance(labels, dict):
        numbers = list(labels.values())
        if not all(type(number) is int for number in numbers) or sorted(numbers) != list(range(len(numbers))):
            raise ValueError(f"{path}: the numbers of answers must be 0 to {len(numbers) - 1}, each once")
        labels = sorted(labels, key=labels.__getitem__)
    if not isinstance(labels, list) or not labels or not all(isinstance(answer, str) for answer in labels):
        raise ValueError(f"{path}: allowed: a list of answers, an object from answer to number, or a line each")
    return labels


def main(
    checkpoint: Annotated[Path, typer.Argument(help="METER's .ckpt, or PuMer's .bin or .safetensors.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")],
    labels: Annotated[Path | None, typer.Option(help="vqav2: the answers of the classifier, in its order.")] = None,
    tokenizer: Annotated[str, typer.Option(help="RoBERTa's tokenizer: folder or Hub id.")] = "FacebookAI/roberta-base",
    initialise_head: Annotated[bool, typer.Option(help="Start fine-tuning from a checkpoint of pre-training.")] = False,
    image_size: Annotated[int | None, typer.Option(min=1, help="Interpolate positions to this side in pixels.")] = None,
    resize: Annotated[str, typer.Option(help="`crop` as METER does, or `square` as PuMer does.")] = "crop",
    head_size: Annotated[int, typer.Option(min=1, help="Channels of an attention head.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the classifier that --initialise-head draws.")] = 0,
) -> None:
    """Convert a METER checkpoint, strictly: every key is renamed, or reported as dropped."""
    if task not in TASKS:
        raise typer.BadParameter(f"task={task!r}; allowed: {', '.join(TASKS)}")
    if (labels is None) == (task == "vqav2"):
        raise typer.BadParameter("labels: vqav2 needs a file of its answers; the other tasks have none")
    with one_line_errors():
        if output.exists() and not output.is_dir():
            raise ValueError(f"output={str(output)!r} is a file; name a folder")
        torch.manual_seed(seed)
        found = convert(read_weights(checkpoint), task, initialise_head, image_size)
        names = None if labels is None else read_labels(labels)
        config = config_of(found.weights, task, names, head_size)
        model = build(found, config, task, initialise_head)
        processor = meter_processor(AutoTokenizer.from_pretrained(tokenizer), config.image_size, resize)
        model.save_pretrained(output)
        processor.save_pretrained(output)
    console = Console(soft_wrap=True)
    console.print(f"{len(found.weights)} weights converted for {type(model).__name__}, written to {output}")
    for title, entries in (("dropped", found.dropped), ("changed", found.changed)):
        console.print(f"{len(entries)} {title}" + "".join(f"\n  {entry}" for entry in entries), markup=False)


if __name__ == "__main__":
    typer.run(main)
