"""Load a reduced model and its processor as the model arguments say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from lmms_tokendrop import catalogue
from lmms_tokendrop.catalogue import Architecture, Head
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.heads import HEADS, choose_head
from lmms_tokendrop.evaluation.processors import load_processor
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.registry import pocket_path

DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_model(
    architecture: str, method: str, options: LoadOptions, reduction: dict[str, Any], device: torch.device
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a checkpoint with a reduction method.

    Parameters
    ----------
    architecture
        Name of one in the catalogue.
    method
        Reduction method.
    options
        How to load.
    reduction
        Options of the reducer. Others are as the checkpoint has them saved for this method, else the defaults; a preset
        replaces everything saved.
    device
        Where the model goes unless ``options.device_map`` spreads it.

    Returns
    -------
    tuple of PreTrainedModel and ProcessorMixin
        The model in evaluation mode, and a processor that pads where the model expects it.
    """
    family = catalogue.architecture(architecture)
    _check_options(family, options)
    path = checkpoint_path(architecture, method, options.pretrained)
    hub = {} if options.revision is None else {"revision": options.revision}
    config = _checked_config(path, family, hub)
    head = _head(family, config.get("architectures") or (), options.head)
    token_reduction = {"method": method, **reduction}
    saved = reductions(architecture).restored(config.get("token_reduction"))
    if saved.get("method") == method:
        token_reduction = reductions(architecture).merged(saved, reduction)
    model = family.load(family.model_class(head)).from_pretrained(
        path,
        token_reduction=token_reduction,
        dtype=resolve_dtype(options.dtype, device),
        device_map=options.device_map or str(device),
        attn_implementation=options.attn_implementation,
        quantization_config=quantization_config(options, family.unquantized),
        **hub,
    )
    processor: Any = load_processor(path, model.config, trust_remote_code=options.trust_remote_code, **hub)
    processor.tokenizer.padding_side = family.padding_side
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model.eval(), processor


def _checked_config(path: str, family: Architecture, hub: dict[str, str]) -> dict[str, Any]:
    """Read a checkpoint's configuration; an error that names the checkpoint if it has none of this architecture."""
    try:
        config = PreTrainedConfig.get_config_dict(path, **hub)[0]
    except OSError as error:
        raise OSError(f"pretrained={path!r}: {error}") from error
    kind = config.get("model_type")
    if kind not in family.model_types:
        raise ValueError(f"pretrained={path!r} is a checkpoint of {kind}; allowed: one of {family.name}")
    return config


def _head(family: Architecture, saved_as: Sequence[str], wanted: str | None) -> Head:
    """Return the head to load a checkpoint with; models that write have one only."""
    return family.heads[0] if family.generates else HEADS[choose_head(saved_as, wanted)]


def _check_options(family: Architecture, options: LoadOptions) -> None:
    """Raise if an option is for other architectures."""
    quantizable = [other.name for other in catalogue.architectures() if other.unquantized is not None]
    encoders = [other.name for other in catalogue.architectures() if not other.generates]
    if (options.load_in_4bit or options.load_in_8bit) and family.name not in quantizable:
        raise ValueError(f"load_in_4bit and load_in_8bit are for {', '.join(quantizable)}, not for {family.name}")
    if (options.head is not None or options.square_image) and family.name not in encoders:
        raise ValueError(f"head and square_image are for {', '.join(encoders)}, not for {family.name}")


def checkpoint_path(architecture: str, method: str, pretrained: str) -> str:
    """Return the folder of a bundled model where ``pretrained`` asks for one, else ``pretrained`` itself."""
    bundled = {"pocket": method, "pocket-teacher": "none"}
    return str(pocket_path(architecture, bundled[pretrained])) if pretrained in bundled else pretrained


def resolve_device(name: str) -> torch.device:
    """Return a device of this machine; a ValueError names those that it has."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices += [kind, *(f"{kind}:{number}" for number in range(torch.accelerator.device_count()))]
    if name not in devices:
        raise ValueError(f"device={name!r}; this machine has {', '.join(devices)}")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> str | torch.dtype:
    """Return the dtype for ``from_pretrained``: half precision pays off on accelerators only."""
    if name not in DTYPES:
        raise ValueError(f"dtype={name!r}; allowed: {', '.join(DTYPES)}")
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return getattr(torch, name)


def quantization_config(options: LoadOptions, unquantized: Sequence[str] | None) -> BitsAndBytesConfig | None:
    """Quantise everything but some modules, or nothing."""
    skipped = list(unquantized or ())
    if options.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    if options.load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skipped,
        )
    return None
