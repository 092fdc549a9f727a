import json

import pytest
from tiny_models import tiny_image
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.calibrate import bisect_threshold, calibrate
from lmms_tokendrop.cli import app
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


def staircase(threshold: float) -> float:
    return 100 - 10 * round(9 * threshold**0.25)


def test_bisection_meets_a_budget_and_says_when_it_cannot():
    threshold, mean = bisect_threshold(staircase, 52, tolerance=5)
    assert mean == staircase(threshold) == 50
    with pytest.raises(ValueError, match=r"budget 5 can't be met: the average is 100.00 .* and 10.00"):
        bisect_threshold(staircase, 5, tolerance=1)
    with pytest.raises(ValueError, match=r"budget 55 can't be met to 1: the nearest is"):
        bisect_threshold(staircase, 55, tolerance=1)


def test_the_threshold_gives_the_budget_on_the_samples(tiny_checkpoint):
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
    model = Model.from_pretrained(path, token_reduction={"method": "mustdrop", "layers": [0, 1]})
    reducer = model.model.token_reducer
    found = calibrate(model, batches, 90, individual_threshold=1.0, tolerance=2, layers=[0, 1])
    assert found.samples == 4
    assert found.average == pytest.approx(90, abs=2)
    assert model.model.token_reducer is reducer
    again = Model.from_pretrained(path, token_reduction=found.token_reduction)
    means = [again.generate(**batch, max_new_tokens=1, return_dict_in_generate=True) for batch in batches]
    averages = [mean for output in means for mean in cache_of(output).report().average_visual_tokens]
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
