import logging

import pytest
from lmms_eval.utils import simple_parse_args_string
from tiny_models import tiny_tokenizer

from lmms_tokendrop.evaluation.generation import NUMBERS, WHOLE_NUMBERS, GenerationSettings, answer_length
from lmms_tokendrop.evaluation.stopping import AnswerEnds


def test_greedy_settings_drop_sampling_options():
    settings = GenerationSettings.from_task({"max_new_tokens": 4, "temperature": 0, "top_p": None, "num_beams": 2})
    assert settings.options == {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}


def test_a_temperature_means_sampling():
    assert GenerationSettings.from_task({"temperature": 0.7}).options["do_sample"] is True


def test_the_answer_ends_at_the_first_stop_string():
    settings = GenerationSettings.from_task({"until": ["\n\n", "", "."]})
    assert settings.cut("a square. a circle\n\nmore") == "a square"
    assert GenerationSettings.from_task({"until": "B"}).cut("A B C") == "A "
    assert GenerationSettings.from_task({}).cut("A\n\nB") == "A\n\nB"


def test_unknown_options_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        settings = GenerationSettings.from_task({"image_aspect_ratio": "pad", "max_gen_toks": 7})
    assert settings.options == {"max_new_tokens": 7, "do_sample": False}
    assert "image_aspect_ratio" in caplog.text


def test_answer_length_counts_the_end_token():
    assert answer_length([5, 6, 2, 3, 3], 2) == 3
    assert answer_length([5, 6, 9, 3], [2, 9]) == 3
    assert answer_length([5, 6], None) == 2


BUNDLED = [
    ({"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, {"num_beams": 1}),
    ({"max_new_tokens": 16, "temperature": 0.0, "top_p": 0, "do_sample": False, "until": []}, {}),
    ({"max_new_tokens": 16, "until": ["ASSISTANT:", "</s>"], "image_aspect_ratio": "original"}, {}),
    ({"max_gen_toks": 16, "visual_cot": True, "seed": 0, "stop_sequences": ["x"], "skip_special_tokens": False}, {}),
    (
        {"max_new_tokens": 16, "repetition_penalty": 1.2, "temperature": None, "do_sample": None},
        {"repetition_penalty": 1.2},
    ),
]
"""What lmms-eval's own tasks carry, and what is left of it beside the length and greedy decoding."""


@pytest.mark.parametrize(("given", "left"), BUNDLED)
def test_what_tasks_commonly_carry_is_taken(given, left):
    assert GenerationSettings.from_task(given).options == {"max_new_tokens": 16, "do_sample": False, **left}


def test_sampling_tasks_keep_their_options():
    options = {"max_new_tokens": 16, "temperature": 1, "top_p": 0.95, "top_k": 1, "do_sample": True}
    settings = GenerationSettings.from_task(options)
    assert settings.options == options
    assert isinstance(settings.options["temperature"], float)


def test_numbers_and_switches_are_read_from_strings_as_on_the_command_line():
    given = {"temperature": "0.5", "max_new_tokens": "8", "do_sample": "True", "top_p": "1e-1"}
    read = {"temperature": 0.5, "max_new_tokens": 8, "do_sample": True, "top_p": 0.1}
    assert GenerationSettings.from_task(given).options == read
    assert GenerationSettings.from_task({"temperature": "0", "max_new_tokens": None}).options == {
        "max_new_tokens": 1024,
        "do_sample": False,
    }


def test_what_is_always_so_may_be_stated():
    given = {"use_cache": True, "num_return_sequences": 1, "return_dict_in_generate": True, "early_stopping": "never"}
    assert GenerationSettings.from_task({"max_new_tokens": 4, **given}).options == {
        "max_new_tokens": 4,
        "early_stopping": "never",
        "do_sample": False,
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("use_cache", False, "use_cache=False; allowed: True"),
        ("num_return_sequences", 2, "num_return_sequences=2; allowed: 1"),
        ("return_dict_in_generate", False, "return_dict_in_generate=False; allowed: True"),
        (
            "stop_strings",
            ["a"],
            "stop_strings is not supported; until does.*allowed: until, max_gen_toks, max_new_tokens",
        ),
        ("eos_token_id", 5, "eos_token_id is not supported"),
        ("temperature", "hot", "temperature='hot'; allowed: a number from 0"),
        ("temperature", True, "temperature=True; allowed: a number"),
        ("temperature", float("nan"), "temperature=nan; allowed: a number"),
        ("max_new_tokens", 1.5, "max_new_tokens=1.5; allowed: a whole number"),
        ("num_beams", "two", "num_beams='two'; allowed: a whole number"),
        ("do_sample", "maybe", "do_sample='maybe'; allowed: true, false"),
        ("early_stopping", "often", "early_stopping='often'; allowed: true, false, never"),
        ("bad_words_ids", 5, "bad_words_ids=5; allowed: a list of lists of token ids"),
        ("bad_words_ids", "[5]", r"bad_words_ids='\[5\]'; allowed: a list of lists of token ids"),
        ("bad_words_ids", [[]], "bad_words_ids="),
        ("suppress_tokens", "[5, x]", "suppress_tokens=.*; allowed: a list of token ids"),
        ("suppress_tokens", [-1], "suppress_tokens="),
        ("begin_suppress_tokens", [True], "begin_suppress_tokens="),
        ("until", 5, "until=5; allowed: a string, or a list of strings"),
        ("until", "[yes,no]", r"until='\[yes,no\]'; allowed: a string, or a list of strings .* JSON quotes"),
        ("until", "[5]", r"until='\[5\]'; allowed"),
        ("until", [5], r"until=\[5\]; allowed"),
    ],
)
def test_what_is_not_supported_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        GenerationSettings.from_task({name: value})


@pytest.mark.parametrize(
    ("name", "low", "high", "refused"),
    [
        ("max_gen_toks", 1, 4096, [0, -1, 1.0, "-1"]),
        ("max_new_tokens", 1, 4096, [0, -1, "0"]),
        ("min_new_tokens", 0, 4, [-1, 5]),
        ("num_beams", 1, 8, [0, "0", -2]),
        ("top_k", 0, 50, [-1]),
        ("no_repeat_ngram_size", 0, 3, [-1]),
        ("top_p", 0, 1, [-0.1, 1.1]),
        ("min_p", 0, 1, [-0.1, 1.1]),
        ("typical_p", 0.1, 1, [0, 1.1]),
        ("top_h", 0.1, 1, [0, 1.1]),
        ("epsilon_cutoff", 0, 0.9, [-0.1, 1]),
        ("eta_cutoff", 0, 0.9, [-0.1, 1]),
        ("repetition_penalty", 0.1, 2, [0, -1]),
        ("length_penalty", -2, 2, [float("inf")]),
        ("max_time", 0.1, 9, [0, -1]),
        ("temperature", 0.1, 9, [0, -1]),
    ],
)
def test_every_number_has_its_range(name, low, high, refused):
    others = {"do_sample": True, "max_new_tokens": 4} if name != "max_gen_toks" else {"do_sample": True}
    for value in (low, high, str(low)):
        GenerationSettings.from_task({**others, name: value})
    for value in refused:
        with pytest.raises(ValueError, match=f"generation_kwargs: {name}=.*; allowed"):
            GenerationSettings.from_task({**others, name: value})


def test_every_supported_number_is_in_that_test():
    [ranges] = [mark for mark in test_every_number_has_its_range.pytestmark if mark.name == "parametrize"]
    assert {name for name, *_ in ranges.args[1]} == {*WHOLE_NUMBERS, *NUMBERS}


def test_lists_are_read_from_strings_as_on_the_command_line():
    given = simple_parse_args_string(
        'until=["yes","no"],suppress_tokens=[5, 6],bad_words_ids=[[5],[6,7]],early_stopping=never,num_beams=2'
    )
    settings = GenerationSettings.from_task({**given, "max_new_tokens": 4})
    assert settings.until == ("yes", "no")
    assert settings.options == {
        "max_new_tokens": 4,
        "suppress_tokens": [5, 6],
        "bad_words_ids": [[5], [6, 7]],
        "early_stopping": "never",
        "num_beams": 2,
        "do_sample": False,
    }
    assert GenerationSettings.from_task({"until": "["}).until == ("[",)
    assert GenerationSettings.from_task({"until": '["[END]"]'}).until == ("[END]",)


def test_the_length_that_transformers_names_goes_before_that_of_lmms_eval():
    assert GenerationSettings.from_task({"max_gen_toks": "7", "max_new_tokens": 8}).options["max_new_tokens"] == 8


def ends_of(text: str, *until: str) -> tuple[str, bool]:
    """Feed a text token by token; return what was read when it ended, and whether it did."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    ends = AnswerEnds(tokenizer, until, prompt_length=0)
    for length in range(1, ids.shape[1] + 1):
        if ends(ids[:, :length], None).item():
            assert ends.length(0) == length
            return tokenizer.decode(ids[0, :length]), True
    return text, False


def test_an_answer_ends_where_no_further_token_changes_its_cut():
    assert ends_of("a red square ? and more", "?") == ("a red square ?", True)
    assert ends_of("a red square", "circle", "\n") == ("a red square", False)
    text, ended = ends_of("x ABC y z", "B", "ABC")
    assert ended
    assert GenerationSettings({}, ("B", "ABC")).cut(text) == "x "
    text, ended = ends_of("x ABz y", "B", "ABC")
    assert ended
    assert GenerationSettings({}, ("B", "ABC")).cut(text) == "x A"


def test_the_prompt_does_not_end_an_answer():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("\n\nred", add_special_tokens=False, return_tensors="pt")["input_ids"]
    prompt_length = len(tokenizer("\n", add_special_tokens=False)["input_ids"])
    ends = AnswerEnds(tokenizer, ("\n\n",), prompt_length)
    assert not ends(ids, None).item()
