"""What a measurement of a decoder is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from lmms_tokendrop.catalogue import architecture, architectures, variants
from lmms_tokendrop.compare import runs
from lmms_tokendrop.compare.plan import COUNTERS, Contender, budget_option
from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.evaluation.loading import resolve_device
from lmms_tokendrop.modeling.core.options import checked_number

DTYPES = ("float32", "bfloat16", "float16", "4bit")
"""Types of weights; with 4bit bitsandbytes quantises the language model, and the rest is bfloat16."""

IMAGES = ("672x672", "336x336")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Setting:
    """A model's size or checkpoint, what it is given, and how it runs.

    Attributes
    ----------
    architecture : str
        In the catalogue; it writes its answers.
    shape, tower : str
        Layers and channels of the decoder and of the vision tower, with random weights, such as ``8x1024``.
    pretrained : str or None
        A checkpoint instead of random weights.
    budget, counter : str
        What methods with a count budget keep: ``1/9``, ``25%`` or a number of tokens; and what is counted.
    images : tuple[str, ...]
        Height and width in pixels of the image that a prompt has; each is measured. None: `IMAGES`, a long and a
        short context, or where an image is one tile whatever its size, the tower's.
    text_tokens, new_tokens : int
        Of the prompt, and those that are generated.
    batch_size : int
        Equal prompts.
    repeats : int
        Timed rounds, after one that is not.
    device, dtype, attention : str
        Where and how the reduced model runs.

    Raises
    ------
    ValueError
        If one can't be; the message names it and what is allowed.
    """

    architecture: str = "llava_next"
    shape: str = "8x1024"
    tower: str = "24x1024"
    pretrained: str | None = None
    budget: str = "1/9"
    counter: str = "input"
    images: tuple[str, ...] = ()
    text_tokens: int = 60
    new_tokens: int = 16
    batch_size: int = 1
    repeats: int = 7
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        writers = [entry.name for entry in architectures() if entry.generates]
        allowed = {"architecture": writers, "counter": COUNTERS, "dtype": DTYPES, "attention": ATTENTIONS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: {', '.join(values)}")
        for name, least in (("text_tokens", 2), ("new_tokens", 1), ("batch_size", 1), ("repeats", 1)):
            checked_number(name, getattr(self, name), whole=True, low=least)
        tiled = "newlines" in architecture(self.architecture).provides
        if not self.images:
            object.__setattr__(self, "images", IMAGES if tiled else IMAGES[-1:])
        if len(set(self.images)) < len(self.images):
            raise ValueError(f"images={','.join(self.images)}; allowed: each once")
        for name, text in (("shape", self.shape), ("tower", self.tower), *(("images", text) for text in self.images)):
            pair(name, text)
        if len(self.images) > 1 and not tiled:
            raise ValueError(
                f"images={','.join(self.images)}; allowed: one, which {self.architecture} reads as one tile"
            )
        self.budget_option()
        self._check_machine()

    def _check_machine(self) -> None:
        device = resolve_device(self.device)
        half = self.dtype in ("bfloat16", "float16")
        here = [name for name in ATTENTIONS if name in attentions(device, half)]
        if self.attention not in here:
            raise ValueError(
                f"attention={self.attention!r} does not run with device={self.device!r}, dtype={self.dtype!r} here; "
                f"allowed: {', '.join(here)}"
            )

    def budget_option(self) -> dict[str, float]:
        """The budget as an option of a method."""
        if re.fullmatch(r"[1-9]\d*/[1-9]\d*", self.budget) and Fraction(self.budget) <= 1:
            return {"keep_ratio": float(Fraction(self.budget))}
        try:
            return budget_option(self.budget)
        except ValueError:
            raise ValueError(f"budget={self.budget!r}; allowed: a share such as 1/9 or 25%, or a number") from None

    def of_batch(self, batch_size: int) -> Setting:
        """The same with another batch size."""
        return replace(self, batch_size=batch_size)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of what isn't quantised."""
        return torch.bfloat16 if self.dtype == "4bit" else getattr(torch, self.dtype)

    def stock_attentions(self) -> list[str]:
        """Implementations that the stock model can run with here."""
        return attentions(torch.device(self.device), self.torch_dtype != torch.float32)


def attentions(device: torch.device, half: bool) -> list[str]:
    """Implementations of attention that run on a device."""
    flash = device.type == "cuda" and half and is_flash_attn_2_available()
    return ["eager", "sdpa", *(["flash_attention_2"] if flash else [])]


def pair(argument: str, text: str) -> tuple[int, int]:
    """Two whole numbers from 1 with an x between them; a ValueError names the argument."""
    found = SIZE.fullmatch(text)
    numbers = tuple(map(int, found.groups())) if found else (0, 0)
    if not all(numbers):
        raise ValueError(f"{argument}={text!r}; allowed: two whole numbers such as 8x1024")
    return numbers


def reductions_for(setting: Setting, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of `token_reduction` for each method, under the name that it was asked for by.

    Parameters
    ----------
    setting
        With the budget that goes to those that take one.
    methods
        Each a method's name, and behind colons options that it has: ``fastv:K=3``.

    Raises
    ------
    ValueError
        For an unknown method, or an option or value that it does not take.
    """
    known = {entry.method: entry for entry in variants(architecture=setting.architecture)}
    found = {}
    for text in methods:
        of = Contender.of(text, known, runs.Setting(setting.architecture, "pocket", None, None, {}))
        if of.calibrates:
            raise ValueError(f"methods: {text!r}; allowed: values that are known, none that is to be calibrated")
        method = text.split(":")[0]
        budget = {**setting.budget_option(), "counter": setting.counter} if of.takes_budgets else {}
        _, options = parse_model_args(
            {**of.given, **budget}, method=method, pretrained="pocket", architecture=setting.architecture
        )
        found[text] = {"method": method, **options}
    return found
