"""What a task's generation settings mean for ``model.generate``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.utils import handle_arg_string
from transformers import GenerationConfig

logger = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS = 1024
SAMPLING_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")

WHOLE_NUMBERS = ("max_new_tokens", "min_new_tokens", "num_beams", "top_k", "no_repeat_ngram_size")
NUMBERS = (
    *(name for name in SAMPLING_OPTIONS if name not in WHOLE_NUMBERS),
    "repetition_penalty",
    "length_penalty",
    "max_time",
)
SWITCHES = ("do_sample", "early_stopping", "remove_invalid_values", "renormalize_logits")
TOKEN_LISTS = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens")
SUPPORTED = (*WHOLE_NUMBERS, *NUMBERS, *SWITCHES, *TOKEN_LISTS)
IMPLIED = {"use_cache": True, "num_return_sequences": 1, "return_dict_in_generate": True}
"""Options of ``generate`` that always have this value here; a task may state it."""


@dataclass(frozen=True)
class GenerationSettings:
    """Options for ``model.generate`` and the strings that end an answer.

    Parameters
    ----------
    options
        Keyword arguments of ``generate``.
    until
        The answer is cut before the first of these.
    """

    options: dict[str, Any]
    until: tuple[str, ...]

    @classmethod
    def from_task(cls, task_options: Mapping[str, Any]) -> GenerationSettings:
        """Translate a task's ``generation_kwargs``.

        Sampling is on if the task says so or gives a temperature above 0. Numbers and switches may be written as
        strings, which are read as lmms-eval reads ``--gen_kwargs``. Names that ``generate`` doesn't know are left out
        with a warning: tasks carry options for other models.

        Raises
        ------
        ValueError
            For an option of ``generate`` that is not supported here, or a value of the wrong kind.
        """
        options = {name: value for name, value in task_options.items() if value is not None}
        until = _stop_strings(options.pop("until", ()))
        new_tokens = options.pop("max_gen_toks", None) or DEFAULT_NEW_TOKENS
        options.setdefault("max_new_tokens", new_tokens)
        unknown = sorted(set(options) - set(vars(GenerationConfig())))
        if unknown:
            logger.warning("generate() has no option %s; left out", ", ".join(unknown))
        left_out = {*unknown, *(name for name, value in IMPLIED.items() if options.get(name) == value)}
        options = {name: _checked(name, value) for name, value in options.items() if name not in left_out}
        options.setdefault("do_sample", options.get("temperature", 0) > 0)
        if not options["do_sample"]:
            for name in SAMPLING_OPTIONS:
                options.pop(name, None)
        return cls(options, until)

    @property
    def stops_early(self) -> bool:
        """Whether generation ends with a stop string. Beams are compared at full length and cut afterwards."""
        return bool(self.until) and self.options.get("num_beams", 1) == 1

    def cut(self, text: str) -> str:
        """Return the text before the first stop string."""
        return text[: min((text.find(stop) for stop in self.until if stop in text), default=None)]


def answer_length(new_ids: Sequence[int], eos_token_id: int | Sequence[int] | None) -> int:
    """Count a row's generated tokens up to its end token, which counts; what follows is padding."""
    ends = {eos_token_id} if isinstance(eos_token_id, int) else set(eos_token_id or ())
    for position, token in enumerate(new_ids):
        if token in ends:
            return position + 1
    return len(new_ids)


def _stop_strings(until: Any) -> tuple[str, ...]:
    stops = (until,) if isinstance(until, str) else until
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"generation_kwargs: until={until!r}; allowed: a string or a list of strings")
    return tuple(stop for stop in stops if stop)


def _checked(name: str, value: Any) -> Any:
    """Return an option's value in the type that ``generate`` wants."""
    if name in IMPLIED:
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: {IMPLIED[name]!r}")
    if name not in SUPPORTED:
        hint = "; until does what stop_strings does" if name == "stop_strings" else ""
        raise ValueError(
            f"generation_kwargs: {name} is not supported{hint}; allowed: until, max_gen_toks, {', '.join(SUPPORTED)}"
        )
    read = handle_arg_string(value.strip()) if isinstance(value, str) else value
    is_number = isinstance(read, (int, float)) and not isinstance(read, bool) and math.isfinite(read)
    if name in WHOLE_NUMBERS and not (is_number and isinstance(read, int)):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: a whole number")
    if name in NUMBERS:
        if not is_number:
            raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: a number")
        return float(read)
    if name in SWITCHES and not isinstance(read, bool) and (name, read) != ("early_stopping", "never"):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: true, false")
    if name in TOKEN_LISTS and not isinstance(read, list):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: a list of token ids")
    return read
