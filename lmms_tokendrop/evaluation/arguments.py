"""What ``--model_args`` may say: the reducer's options and how the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lmms_tokendrop.modeling.core.options import takes_list
from lmms_tokendrop.modeling.methods.available import reductions


@dataclass(frozen=True)
class LoadOptions:
    """How the adapter loads and runs its checkpoint.

    Parameters
    ----------
    pretrained
        Local folder, Hub id, ``"pocket"`` for the bundled model of the method, or ``"pocket-teacher"`` for the bundled
        model that was trained without reduction.
    device
        Device of this process; None takes what accelerate chooses.
    device_map
        Passed to ``from_pretrained``; ``"auto"`` spreads the layers over all devices.
    dtype
        ``"auto"`` takes the checkpoint's on an accelerator and float32 on a CPU; or ``"float32"``, ``"bfloat16"``,
        ``"float16"``.
    attn_implementation
        ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; None lets transformers choose.
    load_in_4bit, load_in_8bit
        Quantise the language model with bitsandbytes.
    trust_remote_code
        Let the processor run code from the checkpoint.
    revision
        Branch, tag or commit of a Hub checkpoint.
    head
        Encoders: which head the checkpoint has, where its configuration does not say it.
    square_image
        Encoders: resize images to a square, as PuMer's protocol does, where ViLT's own keeps the aspect ratio.
    batch_size
        Requests per batch; ``"auto"`` finds the largest that fits on CUDA and takes 8 on a CPU.
    max_batch_size
        Where ``batch_size="auto"`` starts on CUDA.
    """

    pretrained: str
    device: str | None = None
    device_map: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    trust_remote_code: bool = False
    revision: str | None = None
    head: str | None = None
    square_image: bool = False
    batch_size: int | str = 1
    max_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("device", "device_map", "dtype", "attn_implementation", "head"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: a name")
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        if self.device is not None and self.device_map is not None:
            raise ValueError("device and device_map exclude each other")
        for name in ("load_in_4bit", "load_in_8bit", "trust_remote_code", "square_image"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")


def parse_model_args(
    args: Mapping[str, Any], *, method: str, pretrained: str | None, architecture: str = "llava_next"
) -> tuple[LoadOptions, dict[str, Any]]:
    """Split lmms-eval's model arguments into loading options and reducer options.

    Parameters
    ----------
    args
        Arguments as lmms-eval hands them over: numbers and booleans are parsed already.
    method
        Reduction method; it belongs to the model's name and is no argument.
    pretrained
        Checkpoint used if ``args`` names none; None if there is no default.
    architecture
        Model type of the stock class.

    Returns
    -------
    tuple of LoadOptions and dict
        The dict has the reducer options that were given, lists (``2+6+10+14``) parsed. Their values are checked when
        the model is built.

    Raises
    ------
    ValueError
        If an argument is unknown, and the message names those that exist; or if there is no checkpoint.
    """
    load_names = [field.name for field in fields(LoadOptions)]
    known = reductions(architecture)
    reducer_names = sorted(known.offered(known.options_of(method)))
    entries = {name: known.entry(method, name) for name in args if name not in load_names}
    unknown = sorted(name for name, entry in entries.items() if entry is None)
    if unknown:
        raise ValueError(
            f"unknown model argument {', '.join(map(repr, unknown))}; "
            f"options of the method {method!r}: {', '.join(reducer_names) or 'none'}; "
            f"loading options: {', '.join(load_names)}"
        )
    loading = {name: args[name] for name in load_names if name in args}
    loading.setdefault("pretrained", pretrained)
    if loading["pretrained"] is None:
        raise ValueError(f"pretrained: method {method!r} of {architecture} has no default checkpoint; name one")
    for name in ("pretrained", "revision"):
        if loading.get(name) is not None:
            loading[name] = str(loading[name])
    reduction = {name: args[name] for name in entries}
    for name, entry in entries.items():
        if takes_list(entry):
            reduction[name] = parse_list(reduction[name], name)
    return LoadOptions(**loading), reduction


def parse_list(value: Any, name: str = "layers") -> list[int]:
    """Read an option written ``2+6+10+14``: commas separate the model arguments themselves."""
    if isinstance(value, (list, tuple)):
        return list(value)
    try:
        return [int(part) for part in str(value).split("+")]
    except ValueError:
        raise ValueError(f"{name} must be integers joined by '+', such as 2+6+10+14, not {value!r}") from None
