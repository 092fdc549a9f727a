"""What a comparison runs, from what is asked for."""

import pytest

from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.compare.plan import architecture_of, budget_option, numbers, planned
from lmms_tokendrop.compare.runs import Setting
from lmms_tokendrop.modeling.methods.available import reductions


def plan(methods, budgets=("25%", "48"), counter="input", seeds=(0, 1), architecture="llava_next", **model_args):
    setting = Setting(architecture, "pocket", None, None, model_args)
    return planned(setting, ["scenes"], methods, budgets, counter, seeds)


def test_each_method_is_run_at_each_budget_and_with_each_seed_if_it_draws():
    assert [run.name for run in plan(["random", "uniform"])] == [
        "scenes, full",
        "scenes, random, 25%, input, seed 0",
        "scenes, random, 25%, input, seed 1",
        "scenes, uniform, 25%, input",
        "scenes, random, 48, input, seed 0",
        "scenes, random, 48, input, seed 1",
        "scenes, uniform, 48, input",
    ]


def test_a_run_has_the_options_of_its_method_budget_and_seed():
    full, *_, last = plan(["random:newlines=row"], ["48"], "release")
    assert (full.variant, full.options) == ("llava_next_full", {})
    assert last.variant == "llava_next_random"
    assert last.options == {"newlines": "row", "visual_tokens": 48, "counter": "release", "seed": 1}


@pytest.mark.parametrize(
    "method",
    [
        "vision_tome",
        "random:keep_ratio=0.3:seed=3",
        "composed:decoder=fastv:fastv.R=0.5",
        "fastv:R=0.75",
        "fastv:preset=k2-r50",
        "mustdrop:global_threshold=0.01",
    ],
)
def test_what_no_budget_fits_is_run_once_in_its_own_setting(method):
    _, run = plan([method])
    assert (run.label, run.budget, run.counter) == (method, None, None)
    assert "counter" not in run.options


@pytest.mark.parametrize(("features", "seeds"), [("random", [0, 1]), ("uniform", [None])])
def test_a_composition_has_a_seed_where_a_part_of_it_draws(features, seeds):
    _, *runs = plan([f"composed:features={features}:decoder=fastv:fastv.K=1"], ["25%"])
    assert [run.seed for run in runs] == seeds
    assert runs[0].options.items() >= {"features": features, "fastv.K": 1, "keep_ratio": 0.25}.items()


def test_a_seed_that_is_given_is_the_only_one():
    _, run = plan(["random:seed=7"], ["25%"])
    assert (run.seed, run.options["seed"]) == (None, 7)


@pytest.mark.parametrize("architecture", ["llava_next", "vilt"])
def test_without_names_every_method_of_the_catalogue_is_there_that_asks_for_nothing(architecture):
    runs, known = plan(None, architecture=architecture), reductions(architecture)
    expected = [entry for entry in variants(architecture=architecture) if not known.options_of(entry.method).required]
    assert {run.variant for run in runs} == {entry.model_id for entry in expected}
    assert [run.label for run in runs].count("full") == 1


def test_a_ratio_of_an_encoder_is_no_budget():
    runs = plan(["dynamicvit", "pumer"], ["25%"], architecture="vilt")
    assert [(run.label, run.budget, run.options) for run in runs[1:]] == [("dynamicvit", None, {}), ("pumer", None, {})]


def test_an_option_is_calibrated_at_every_budget_in_place_of_a_count():
    _, one, other = plan(["mustdrop:key_ratio=0.1:global_threshold=calibrated"])
    assert [(run.budget, run.counter, run.options) for run in (one, other)] == [
        ("25%", "input", {"key_ratio": 0.1}),
        ("48", "input", {"key_ratio": 0.1}),
    ]
    assert (one.calibrates, one.calibrate_on) == ("global_threshold", "scenes_validation")


def test_every_run_has_a_file_of_its_own():
    runs = [run for counter in ("input", "release") for run in plan(["random", "mustdrop:layers=0+2"], counter=counter)]
    runs += plan(None, ["25%", "25", "2.5"])
    assert len({run.file for run in runs}) == len({run.name for run in runs})
    assert plan(["random"], ["25%"])[1].file == "scenes/random-25pct-input-seed_0.json"


@pytest.mark.parametrize(("text", "option"), [("25%", {"keep_ratio": 0.25}), ("160", {"visual_tokens": 160})])
def test_a_budget_is_a_share_or_a_number_of_tokens(text, option):
    assert budget_option(text) == option


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["tomee"]}, "methods: 'tomee'; allowed for llava_next: none, mustdrop,"),
        ({"methods": ["random:fast"]}, "methods: 'random:fast'; allowed: a method and its options, such as"),
        ({"methods": ["random:speed=1"]}, "unknown model argument 'speed'; options of the method 'random'"),
        ({"methods": ["mustdrop:key_ratio=2"]}, "key_ratio=2; allowed: a number from 0 to 1"),
        ({"methods": ["random:newlines=calibrated"]}, "allowed: calibrated for one option of random, a number"),
        ({"methods": ["random:speed=calibrated"]}, "allowed: calibrated for one option of random, a number"),
        (
            {"methods": ["mustdrop:key_ratio=calibrated:text_ratio=calibrated"]},
            "allowed: calibrated for one option of mustdrop, a number",
        ),
        ({"methods": ["random", "random"]}, "methods=random,random; allowed: at least one, and each once"),
        ({"methods": ["random"], "budgets": ["120%"]}, "budgets: '120%'; allowed: a share such as 25%"),
        ({"methods": ["random"], "budgets": ["few"]}, "budgets: 'few'; allowed: a share such as 25%"),
        ({"methods": ["random"], "budgets": ["0"]}, "budgets: '0'; allowed"),
        ({"methods": ["random"], "budgets": []}, "budgets=; allowed: at least one, and each once"),
        ({"methods": []}, "methods=; allowed: at least one, and each once"),
        ({"methods": ["random"], "counter": "both"}, "counter='both'; allowed: input, release"),
        ({"methods": ["random"], "seeds": [-1]}, "seeds=-1; allowed: whole numbers from 0"),
        ({"methods": ["random"], "seeds": []}, "seeds=; allowed: at least one, and each once"),
        ({"methods": ["random"], "dtyp": "float16"}, "unknown model argument 'dtyp'"),
        ({"methods": None, "architecture": "clip"}, "architecture='clip'; allowed: llava_next,"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(given, message):
    with pytest.raises(ValueError, match=message):
        plan(**given)


def test_numbers_that_are_none_are_refused():
    assert numbers("seeds", "0, 3") == [0, 3]
    with pytest.raises(ValueError, match="seeds='0,x'; allowed: whole numbers, separated by commas"):
        numbers("seeds", "0,x")


def test_a_checkpoint_says_its_architecture(tiny_checkpoint, tiny_llava_checkpoint, tiny_vilt_checkpoint, tmp_path):
    found = [architecture_of(str(path)) for path in (tiny_checkpoint(), tiny_llava_checkpoint, tiny_vilt_checkpoint())]
    assert ["llava_next", *found] == [architecture_of("pocket"), "llava_next", "llava", "vilt"]
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="is a checkpoint of clip; allowed: one of llava_next, llava, vilt, meter"):
        architecture_of(str(tmp_path))
