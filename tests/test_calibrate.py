import json

import pytest
from tiny_models import tiny_image
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.calibrate import calibrate
from lmms_tokendrop.cli import app
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


@pytest.mark.parametrize(
    ("method", "calibrated", "options", "budget"),
    [
        ("mustdrop", "global_threshold", {"individual_threshold": 1.0, "layers": [0, 1]}, 90),
        ("sparsevlm", "rank_ratio", {"recycling": "sum"}, 90),
        ("prumerge", "iqr_factor", {"neighbours": 4}, 20),
        ("sparsevlm", "rank_ratio", {"counter": "release", "layers": [0]}, 60),
    ],
)
def test_the_value_gives_the_budget_on_the_samples(tiny_checkpoint, method, calibrated, options, budget):
    from transformers import AutoProcessor

    from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration as Model

    path = tiny_checkpoint("llama")
    processor = AutoProcessor.from_pretrained(path)
    batches = [
        processor(
            text=["USER: <image>\nwhat is it ? ASSISTANT:"] * 2,
            images=[tiny_image(60, 40, seed=seed), tiny_image(84, 84, seed=seed + 1)],
            padding=True,
            return_tensors="pt",
        )
        for seed in (0, 2)
    ]
    model = Model.from_pretrained(path, token_reduction={"method": method})
    reducer = model.model.token_reducer
    found = calibrate(model, batches, budget, tolerance=2, **options)
    assert found.samples == 4
    assert found.average == pytest.approx(budget, abs=2)
    assert found.token_reduction.keys() == {"method", calibrated, *options}
    assert model.model.token_reducer is reducer
    again = Model.from_pretrained(path, token_reduction=found.token_reduction)
    means = [again.generate(**batch, max_new_tokens=1, return_dict_in_generate=True) for batch in batches]
    counter = f"average_visual_tokens{'_release' if 'counter' in options else ''}"
    averages = [mean for output in means for mean in getattr(cache_of(output).report(), counter)]
    assert sum(averages) / 4 == pytest.approx(found.average)


def test_the_command_prints_thresholds_or_fails(tiny_checkpoint):
    options = ["calibrate", "--pretrained", str(tiny_checkpoint("llama")), "--limit", "3", "--tolerance", "8"]
    options += ["--individual-threshold", "1"]
    good = CliRunner().invoke(app, [*options, "--budget", "60"])
    assert good.exit_code == 0, good.output
    assert 'token_reduction={"method": "mustdrop"' in good.output
    bad = CliRunner().invoke(app, [*options, "--budget", "100000"])
    assert bad.exit_code == 1
    assert "can't be met" in bad.output


def test_the_command_calibrates_any_method_whose_counts_depend_on_the_data(tiny_checkpoint):
    options = ["calibrate", "--pretrained", str(tiny_checkpoint("llama")), "--limit", "3", "--budget", "90"]
    options += ["--tolerance", "8", "--model", "llava_next_sparsevlm", "--model-args", "recycling=none,layers=0+2"]
    good = CliRunner().invoke(app, options)
    assert good.exit_code == 0, good.output
    found = json.loads(good.output.split("token_reduction=")[1])
    assert 0 < found.pop("rank_ratio") < 1
    assert found == {"method": "sparsevlm", "counter": "input", "recycling": "none", "layers": [0, 2]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "llava_next_fastv"],
            "method='fastv' has no option to calibrate; allowed here: mustdrop, sparsevlm, prumerge",
        ),
        (["--model", "vilt_pumer"], "method='pumer' has no option to calibrate; allowed here: no method"),
        (["--model", "llava_next"], "unknown variant 'llava_next'; registered: llava_next_full"),
        (["--model-args", "global_threshold=0.1"], "global_threshold=0.1: this is what is calibrated"),
        (["--model-args", "recycling=sum"], "unknown model argument 'recycling'"),
    ],
)
def test_the_command_says_what_it_can_t_calibrate(tiny_checkpoint, arguments, message):
    options = ["calibrate", "--pretrained", str(tiny_checkpoint("llama")), "--limit", "1", "--budget", "60"]
    result = CliRunner().invoke(app, [*options, *arguments])
    assert result.exit_code == 1
    assert f"Error: {message}" in result.output


def test_the_defaults_meet_half_the_tokens_of_the_bundled_model():
    result = CliRunner().invoke(app, ["calibrate", "--budget", "96", "--limit", "16"])
    assert result.exit_code == 0, result.output
    assert "individual_threshold" not in result.output
    average = float(result.output.split("average visual tokens: ")[1].split()[0])
    assert average == pytest.approx(96, abs=1)


def test_the_command_takes_the_options_that_set_the_rest(tiny_checkpoint):
    options = ["calibrate", "--pretrained", str(tiny_checkpoint("llama")), "--limit", "2", "--tolerance", "30"]
    options += ["--budget", "60", "--merge-threshold", "0.9", "--key-ratio", "0.05"]
    good = CliRunner().invoke(app, [*options, "--layers", "0+1"])
    assert good.exit_code == 0, good.output
    found = json.loads(good.output.split("token_reduction=")[1])
    assert found.pop("global_threshold") > 0
    assert found == {
        "method": "mustdrop",
        "counter": "input",
        "layers": [0, 1],
        "merge_threshold": 0.9,
        "key_ratio": 0.05,
    }
    for layers, message in (("0,1", "integers joined by"), ("0+9", "layers=")):
        bad = CliRunner().invoke(app, [*options, "--layers", layers])
        assert bad.exit_code == 1
        assert message in bad.output
