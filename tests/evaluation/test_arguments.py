import pytest

from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.evaluation.arguments import parse_model_args as parse
from lmms_tokendrop.modeling.methods.available import reductions


def test_options_are_split_and_lists_parsed():
    options, reduction = parse(
        {"layers": "2+6+10+14", "keep_ratio": 0.25, "dtype": "bfloat16", "batch_size": "4", "revision": 12345},
        method="mustdrop",
        pretrained="default/checkpoint",
    )
    assert reduction == {"layers": [2, 6, 10, 14], "keep_ratio": 0.25}
    assert (options.pretrained, options.dtype, options.batch_size) == ("default/checkpoint", "bfloat16", "4")
    assert options.revision == "12345"


def test_a_variant_without_a_default_checkpoint_needs_one():
    with pytest.raises(ValueError, match="pretrained: method 'dynamicvit' of meter has no default checkpoint; name"):
        parse({}, method="dynamicvit", pretrained=None, architecture="meter")
    options, _ = parse({"pretrained": "mine"}, method="dynamicvit", pretrained=None, architecture="meter")
    assert options.pretrained == "mine"


def test_options_of_the_methods_of_a_composition_are_named_with_them():
    given = {"decoder": "mustdrop", "mustdrop.layers": "2+6", "mustdrop.key_ratio": 0.1, "keep_ratio": 0.25}
    assert parse(given, method="composed", pretrained="x")[1] == {**given, "mustdrop.layers": [2, 6]}
    for name in ("mustdrop.key_rate", "other.layers", "key_ratio"):
        with pytest.raises(ValueError, match=f"unknown model argument '{name}'; options of the method 'composed'"):
            parse({name: 1}, method="composed", pretrained="x")
    with pytest.raises(ValueError, match=r"unknown model argument 'mustdrop\.layers'"):
        parse({"mustdrop.layers": 2}, method="mustdrop", pretrained="x")


def test_one_layer_is_a_list_too():
    assert parse({"layers": 3}, method="mustdrop", pretrained="x")[1] == {"layers": [3]}
    with pytest.raises(ValueError, match=r"layers must be integers joined by '\+'"):
        parse({"layers": "2+six"}, method="mustdrop", pretrained="x")


def test_unknown_argument_names_what_is_allowed():
    with pytest.raises(ValueError, match=r"'keep_rate'.*keep_ratio.*attn_implementation"):
        parse({"keep_rate": 0.25}, method="mustdrop", pretrained="x")


def test_only_the_options_of_the_method_are_allowed():
    with pytest.raises(ValueError, match="'method'"):
        parse({"method": "random"}, method="mustdrop", pretrained="x")
    with pytest.raises(ValueError, match=r"'layers'; options of the method 'random': .*keep_ratio"):
        parse({"layers": 2}, method="random", pretrained="x")
    with pytest.raises(ValueError, match="'keep_ratio'; options of the method 'none': none"):
        parse({"keep_ratio": 0.5}, method="none", pretrained="x")


@pytest.mark.parametrize(
    ("architecture", "method"),
    [(entry.architecture, entry.method) for entry in variants()],
)
def test_every_option_of_every_method_is_taken(architecture, method):
    known = reductions(architecture)
    given = dict.fromkeys(known.offered(known.options_of(method)), 1)
    assert set(parse(given, method=method, pretrained="x", architecture=architecture)[1]) == set(given)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
        ({"load_in_8bit": "maybe"}, "load_in_8bit must be True or False"),
        ({"device": 0}, "device=0; allowed: a name"),
        ({"dtype": 16}, "dtype=16; allowed: a name"),
        ({"square_image": 384}, "square_image must be True or False"),
    ],
)
def test_contradictions_raise(args, message):
    with pytest.raises(ValueError, match=message):
        parse(args, method="mustdrop", pretrained="x")
