"""What the command line says of a plan, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.evaluation.arguments import LoadOptions, parse_model_args
from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.plan.planning import Limit
from lmms_tokendrop.plan.plans import Request
from lmms_tokendrop.plan.targets import Target

DTYPES = ("float16", "bfloat16", "float32")
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
LARGEST_SIDE, MOST_IMAGES, MOST_TEXT, MOST_TOKENS = 10_000, 16, 32_768, 1_000_000
"""Pixels of a side, images, text tokens, and visual or new tokens: far past what is asked."""


def parse_reduction(target: Target, model: str | None, model_args: str) -> dict[str, Any]:
    """Options of a variant's method.

    Parameters
    ----------
    target
        The model that is planned for.
    model
        Id of a variant; None: the unreduced model.
    model_args
        As for lmms-eval.

    Raises
    ------
    ValueError
        If the variant is not one of the target's architecture, or an option is not one of its method.
    """
    from lmms_eval.utils import simple_parse_args_string

    family = target.architecture.name
    methods = {entry.model_id: entry.method for entry in variants(architecture=family)}
    if model is not None and model not in methods:
        raise ValueError(f"model={model!r}; allowed for {target.name}: {', '.join(methods)}")
    method = UNREDUCED if model is None else methods[model]
    given = dict(simple_parse_args_string(model_args))
    if loading := [field.name for field in fields(LoadOptions) if field.name in given]:
        raise ValueError(f"model_args: {', '.join(loading)}; allowed: options of the method, as nothing is loaded here")
    _, options = parse_model_args(given, method=method, pretrained=target.name, architecture=family)
    reduction = {"method": method, **options}
    target.config(reduction)
    return reduction


def parse_request(
    images: Sequence[str],
    visual_tokens: int | None,
    text_tokens: str | None,
    new_tokens: int,
    concurrent: int,
    dtype: str,
) -> Request:
    """What a model is asked; a ValueError names the option that is wrong and what is allowed."""
    if images and visual_tokens is not None:
        raise ValueError("image and visual_tokens exclude each other")
    if len(images) > MOST_IMAGES:
        raise ValueError(f"image was given {len(images)} times; allowed: up to {MOST_IMAGES}")
    if visual_tokens is not None:
        checked_number("visual_tokens", visual_tokens, whole=True, low=0, high=MOST_TOKENS)
    checked_number("new_tokens", new_tokens, whole=True, low=0, high=MOST_TOKENS)
    checked_number("concurrent", concurrent, whole=True, low=1)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; allowed: {', '.join(DTYPES)}")
    before, behind = (None, None) if text_tokens is None else _text(text_tokens)
    return Request(
        images=tuple(map(_size, images)),
        visual_tokens=visual_tokens,
        before=before,
        behind=behind,
        new_tokens=new_tokens,
        concurrent=concurrent,
        dtype=getattr(torch, dtype),
    )


def parse_limit(memory: str | None, speed_up: float | None) -> Limit | None:
    """What a budget is looked for; None: nothing. A ValueError says what is wrong."""
    if memory is not None and speed_up is not None:
        raise ValueError("memory and speed_up exclude each other")
    if speed_up is not None:
        return Limit("speed_up", checked_number("speed_up", speed_up, whole=False, low=1))
    if memory is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|)", memory.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"memory={memory!r}; allowed: bytes, or a number with KB, MB, GB, KiB, MiB or GiB")
    return Limit("memory", float(found[1]) * UNITS[found[2].upper()])


def _size(image: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", image)
    if not found or not all(1 <= int(side) <= LARGEST_SIDE for side in found.groups()):
        raise ValueError(f"image={image!r}; allowed: width x height in pixels, 1 to {LARGEST_SIDE}, such as 640x480")
    return int(found[1]), int(found[2])


def _text(tokens: str) -> tuple[int, int]:
    """Tokens before and behind the images; one number: all are behind."""
    found = re.fullmatch(r"(?:(\d{1,6})\+)?(\d{1,6})", tokens)
    before, behind = (int(found[1] or 0), int(found[2])) if found else (MOST_TEXT, 1)
    if before + behind > MOST_TEXT:
        raise ValueError(
            f"text_tokens={tokens!r}; allowed: a number behind the images, or before+behind such as 35+25, up to "
            f"{MOST_TEXT} together"
        )
    return before, behind
