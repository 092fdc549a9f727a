import logging

from lmms_tokendrop.evaluation.generation import GenerationSettings, answer_length


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
