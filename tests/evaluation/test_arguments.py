import pytest

from lmms_tokendrop.evaluation.arguments import parse_model_args, reducer_option_names


def test_options_are_split_and_lists_parsed():
    options, reduction = parse_model_args(
        {"layers": "2+6+10+14", "keep_ratio": 0.25, "dtype": "bfloat16", "batch_size": "4", "revision": 12345},
        pretrained="default/checkpoint",
    )
    assert reduction == {"layers": [2, 6, 10, 14], "keep_ratio": 0.25}
    assert (options.pretrained, options.dtype, options.batch_size) == ("default/checkpoint", "bfloat16", "4")
    assert options.revision == "12345"


def test_one_layer_is_a_list_too():
    assert parse_model_args({"layers": 3}, pretrained="x")[1] == {"layers": [3]}
    with pytest.raises(ValueError, match=r"layers must be integers joined by '\+'"):
        parse_model_args({"layers": "2+six"}, pretrained="x")


def test_unknown_argument_names_what_is_allowed():
    with pytest.raises(ValueError, match=r"'keep_rate'.*keep_ratio.*attn_implementation"):
        parse_model_args({"keep_rate": 0.25}, pretrained="x")


def test_the_method_belongs_to_the_model_name():
    assert "method" not in reducer_option_names()
    with pytest.raises(ValueError, match="'method'"):
        parse_model_args({"method": "random"}, pretrained="x")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
        ({"load_in_8bit": "maybe"}, "load_in_8bit must be True or False"),
    ],
)
def test_contradictions_raise(args, message):
    with pytest.raises(ValueError, match=message):
        parse_model_args(args, pretrained="x")
