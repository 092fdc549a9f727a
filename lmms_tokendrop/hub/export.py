"""Write a variant as a folder that loads with `trust_remote_code` and without the package."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin

import lmms_tokendrop
from lmms_tokendrop.catalogue import Architecture, Head, Variant, architecture, variant
from lmms_tokendrop.evaluation.processors import fit_processor
from lmms_tokendrop.hub.base import Base, resolve_base, saved_reduction, tuned_with
from lmms_tokendrop.hub.code import code_modules, model_auto_map, model_code, set_auto_maps, shipped_class
from lmms_tokendrop.hub.folder import LICENSE, MANIFEST
from lmms_tokendrop.hub.manifest import Manifest
from lmms_tokendrop.hub.picture import PICTURE, kept_picture
from lmms_tokendrop.hub.self_check import Example, parameter_shapes, run_example, self_check
from lmms_tokendrop.hub.shipped import license_text
from lmms_tokendrop.hub.staging import staged
from lmms_tokendrop.modeling.core.reducer import PLACES
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

FORMS = ("config", "full")
CHECKS = ("weights", "meta")


def export(variant_id: str, folder: Path, **options: Any) -> Manifest:
    """Write a variant to a folder and check it; nothing is left behind if either fails.

    Parameters
    ----------
    variant_id
        Name of a registered variant.
    folder
        New folder, or an empty one.
    **options
        Those of `build`.

    Returns
    -------
    Manifest
        The folder's record.

    Raises
    ------
    ValueError
        If the folder has files, or if an option is wrong.
    SelfCheckError
        If the folder does not do what the package's class does.
    OSError
        If the folder can't be written.
    """
    with staged(folder) as staging:
        self_check({staging: build(variant_id, staging, **options)})
        return Manifest.read(staging)


def build(
    variant_id: str,
    folder: Path,
    *,
    base: str | None = None,
    form: str = "config",
    token_reduction: dict[str, Any] | None = None,
    license: str | None = None,
    max_shard_size: str = "5GB",
    check: str = "weights",
) -> Example:
    """Write a variant to an existing, empty folder, without the self-check.

    Parameters
    ----------
    variant_id
        Name of a registered variant.
    folder
        Where to write.
    base
        Base: ``"pocket"``, a folder or a Hub repository. Default: the variant's.
    form
        ``"config"``: the weights stay in the base's repository, pinned to its present commit. ``"full"``: with weights.
    token_reduction
        Options of the method. Others are as the base has them saved for this method, else the method's defaults.
    license
        Licence of the weights if the base is a folder.
    max_shard_size
        Largest safetensors file, such as ``"5GB"``.
    check
        ``"weights"``: the self-check compares logits. ``"meta"``: the weights are not fetched, and it compares
        parameter names and shapes; `push` refuses such a folder.

    Returns
    -------
    Example
        What the package's class made of an example, for `self_check`.

    Raises
    ------
    ValueError
        If an option is wrong or the base does not fit.
    """
    check_allowed("form", form, FORMS)
    check_allowed("check", check, CHECKS)
    if check == "meta" and form == "full":
        raise ValueError("check='meta' fetches no weights; allowed with form='config' only")
    entry = variant(variant_id)
    kind = architecture(entry.architecture)
    source = base or entry.pretrained
    if source is None:
        raise ValueError(f"base: {variant_id} has no default; name a checkpoint")
    found = resolve_base(source, entry.architecture, entry.method, license)
    if form == "config" and found.revision is None:
        raise ValueError("form='config' needs a base on the Hub; allowed for a local folder: form='full'")
    options, _ = PreTrainedConfig.get_config_dict(found.source, **found.location)
    head = kind.head(options.get("architectures"))
    auto_map = model_auto_map(kind, head)
    saved = saved_reduction(options, entry.architecture, entry.method)
    reduction = reductions(entry.architecture).merged(saved, token_reduction or {})
    model, example = load_with_example(kind, head, found, reduction, check)
    processor = kind.processor_for(model.config.token_reduction, exported=True)
    model.config.architectures = [kind.model_class(head)]
    _save_model(model, found, form, max_shard_size, folder)
    fit_processor(_load_processor(found, processor), model.config).save_pretrained(folder)
    methods = reductions(entry.architecture).from_dict(model.config.token_reduction).methods
    _save_code(entry, methods, auto_map, shipped_class(processor), folder)
    manifest = Manifest(
        package_version=lmms_tokendrop.__version__,
        variant=entry.model_id,
        form=form,
        base_model=found.name,
        base_revision=found.revision,
        bundled=found.bundled,
        license=found.license,
        base_reduction=saved,
        tuned=tuned_with(options, entry.method),
        stages=_stages(model),
        example_tokens=_save_example(example, model, folder),
    )
    manifest.with_files(folder).write(folder)
    _set_modes(folder)
    return example


def load_with_example(
    kind: Architecture, head: Head, base: Base, reduction: dict[str, Any] | None, check: str
) -> tuple[PreTrainedModel, Example]:
    """Load a model with the package's own class, and ask it about a generated scene.

    Parameters
    ----------
    kind, head
        Which class.
    base
        Where it lies.
    reduction
        Options of the method; None: those that are saved.
    check
        ``"weights"``, or ``"meta"``: without weights and answers.
    """
    model = _load(kind, head, base, reduction, meta=check == "meta")
    images, question = _example_input(head.images)
    if check == "meta":
        return model, Example(images, question, None, parameter_shapes(model))
    processor = _load_processor(base, kind.processor_for(model.config.token_reduction, exported=True))
    return model, run_example(model, fit_processor(processor, model.config), images, question)


def _load(
    kind: Architecture, head: Head, base: Base, reduction: dict[str, Any] | None, *, meta: bool
) -> PreTrainedModel:
    """The reduced model, with the package's own class."""
    model_class = kind.load(kind.model_class(head))
    if meta:
        config = model_class.config_class.from_pretrained(base.source, token_reduction=reduction, **base.location)
        with torch.device("meta"):
            return model_class(config)
    return model_class.from_pretrained(
        base.source, token_reduction=reduction, dtype="auto", use_safetensors=True, **base.location
    )


def _load_processor(base: Base, reference: str) -> ProcessorMixin:
    """The base's processor, in the class that goes with the model."""
    processor_class = AutoProcessor if shipped_class(reference) is None else resolve_name(reference)
    return processor_class.from_pretrained(base.source, trust_remote_code=False, **base.location)


def _save_model(model: PreTrainedModel, base: Base, form: str, max_shard_size: str, folder: Path) -> None:
    """Write the configuration, and the weights or where they are."""
    if form == "full":
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return
    model.config.base_weights = {"repo_id": base.source, "revision": base.revision}
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _save_example(example: Example, model: PreTrainedModel, folder: Path) -> dict[str, Any] | None:
    """Draw what is left of the example, and return the numbers of tokens; None without weights."""
    if example.outputs is None:
        return None
    kept_picture(example.images[0], example.outputs["report"], model).save(folder / PICTURE)
    return {"full": example.outputs["full"], "layers": example.outputs["tokens"]}


def _save_code(
    entry: Variant, methods: tuple[str, ...], auto_map: dict[str, str], processor: str | None, folder: Path
) -> None:
    """Write the code, its licence and where the classes are, in place of whatever code the base's files referred to."""
    auto_maps = {"config.json": auto_map}
    if processor is not None:
        auto_maps["processor_config.json"] = {"AutoProcessor": processor}
    for name, text in model_code(code_modules(auto_maps.values()), entry.architecture, *methods).items():
        (folder / name).write_text(text)
    set_auto_maps(folder, auto_maps)
    (folder / LICENSE).write_text(license_text(), encoding="utf-8")


def _set_modes(folder: Path) -> None:
    """Give every file the mode of one that this process made; safetensors' have a stricter one."""
    mode = (folder / MANIFEST).stat().st_mode
    for path in folder.iterdir():
        path.chmod(mode)


def _stages(model: PreTrainedModel) -> list[str]:
    """Where tokens leave, in words."""
    reducer = next(module.token_reducer for module in model.modules() if hasattr(module, "token_reducer"))
    lines = [
        "features, before the first layer"
        if stage.place == "features"
        else f"{stage.place}, layer {stage.layer}, {stage.point.replace('_', ' ')}"
        for stage in reducer.stages()
        if stage.place != "decode"
    ]
    for point in PLACES["decode"]:
        layers = [stage.layer for stage in reducer.stages_at("decode") if stage.point == point]
        lines += [f"decode, layers {layers[0]} to {layers[-1]}, {point.replace('_', ' ')}"] if layers else []
    return lines


def _example_input(images: int) -> tuple[list[Image.Image], str]:
    """Generated scenes and the first one's first question."""
    scenes = list(islice(task_scenes(), images))
    return [render(scene) for scene, _ in scenes], scenes[0][1][0].text


def check_allowed(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError for a value of an argument that is not allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
