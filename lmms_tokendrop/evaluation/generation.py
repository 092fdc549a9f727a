"""What a task's generation settings mean for ``model.generate``."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.utils import handle_arg_string
from transformers import GenerationConfig

logger = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS = 1024
SAMPLING_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")

Limit = tuple[Callable[[float], bool], str]
"""Whether a number is allowed, and which are."""

FROM_0: Limit = (lambda value: value >= 0, "from 0")
FROM_1: Limit = (lambda value: value >= 1, "from 1")
ABOVE_0: Limit = (lambda value: value > 0, "above 0")
SHARE: Limit = (lambda value: 0 <= value <= 1, "from 0 to 1")
SHARE_ABOVE_0: Limit = (lambda value: 0 < value <= 1, "above 0, up to 1")
SHARE_BELOW_1: Limit = (lambda value: 0 <= value < 1, "from 0, below 1")
WHOLE_NUMBERS: dict[str, Limit] = {
    "max_gen_toks": FROM_1,
    "max_new_tokens": FROM_1,
    "min_new_tokens": FROM_0,
    "num_beams": FROM_1,
    "top_k": FROM_0,
    "no_repeat_ngram_size": FROM_0,
}
NUMBERS: dict[str, Limit] = {
    "temperature": FROM_0,
    "top_p": SHARE,
    "min_p": SHARE,
    "typical_p": SHARE_ABOVE_0,
    "top_h": SHARE_ABOVE_0,
    "epsilon_cutoff": SHARE_BELOW_1,
    "eta_cutoff": SHARE_BELOW_1,
    "repetition_penalty": ABOVE_0,
    "length_penalty": (math.isfinite, "finite"),
    "max_time": ABOVE_0,
}
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

        Sampling is on if the task says so or gives a temperature above 0. Numbers, switches and lists may be written as
        strings, which are read as lmms-eval reads ``--gen_kwargs``, lists as JSON. Names that ``generate`` doesn't know
        are left out with a warning: tasks carry options for other models.

        Raises
        ------
        ValueError
            For an option of ``generate`` that is not supported here, for a value of the wrong kind or out of range, or
            for values that contradict each other.
        """
        options = {name: value for name, value in task_options.items() if value is not None}
        until = _stop_strings(options.pop("until", ()))
        unknown = sorted(set(options) - set(vars(GenerationConfig())) - set(SUPPORTED))
        if unknown:
            logger.warning("generate() has no option %s; left out", ", ".join(unknown))
        left_out = {*unknown, *(name for name, value in IMPLIED.items() if options.get(name) == value)}
        options = {name: _checked(name, value) for name, value in options.items() if name not in left_out}
        options.setdefault("max_new_tokens", options.pop("max_gen_toks", DEFAULT_NEW_TOKENS))
        options.pop("max_gen_toks", None)
        if options.get("min_new_tokens", 0) > options["max_new_tokens"]:
            raise ValueError(
                f"generation_kwargs: min_new_tokens={options['min_new_tokens']}; allowed: up to max_new_tokens, which "
                f"is {options['max_new_tokens']}"
            )
        options.setdefault("do_sample", options.get("temperature", 0) > 0)
        if options["do_sample"] and options.get("temperature") == 0:
            raise ValueError("generation_kwargs: temperature=0; allowed with do_sample: above 0")
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
    stops = _read(until) if _is_bracketed(until) else until
    stops = (stops,) if isinstance(stops, str) and not _is_bracketed(stops) else stops
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(
            f"generation_kwargs: until={until!r}; allowed: a string, or a list of strings such as "
            '["yes", "5"], which brackets and JSON quotes mark in text'
        )
    return tuple(stop for stop in stops if stop)


def _is_bracketed(value: Any) -> bool:
    return isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]")


def _read(value: Any) -> Any:
    """Return what text says; text that is none of a number, a switch and a JSON list stays text."""
    if not isinstance(value, str):
        return value
    if not _is_bracketed(value):
        return handle_arg_string(value.strip())
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _checked(name: str, value: Any) -> Any:
    """Return an option's value in the type that ``generate`` wants."""
    if name in IMPLIED:
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: {IMPLIED[name]!r}")
    if name not in SUPPORTED:
        hint = "; until does what stop_strings does" if name == "stop_strings" else ""
        raise ValueError(f"generation_kwargs: {name} is not supported{hint}; allowed: until, {', '.join(SUPPORTED)}")
    read = _read(value)
    if name in WHOLE_NUMBERS or name in NUMBERS:
        return _checked_number(name, value, read)
    if name in SWITCHES and not isinstance(read, bool) and (name, read) != ("early_stopping", "never"):
        never = ", never" if name == "early_stopping" else ""
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: true, false{never}")
    if name == "bad_words_ids" and not (isinstance(read, list) and read and all(map(_are_token_ids, read))):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: a list of lists of token ids")
    if name in TOKEN_LISTS and name != "bad_words_ids" and not _are_token_ids(read):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: a list of token ids")
    return read


def _checked_number(name: str, value: Any, read: Any) -> int | float:
    kind, is_allowed, span = (
        ("a whole number", *WHOLE_NUMBERS[name]) if name in WHOLE_NUMBERS else ("a number", *NUMBERS[name])
    )
    is_number = isinstance(read, int if name in WHOLE_NUMBERS else (int, float)) and not isinstance(read, bool)
    if not is_number or not math.isfinite(read) or not is_allowed(read):
        raise ValueError(f"generation_kwargs: {name}={value!r}; allowed: {kind} {span}")
    return read if name in WHOLE_NUMBERS else float(read)


def _are_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)
