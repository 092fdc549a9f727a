"""The command `plan`: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from lmms_tokendrop import pocket_path
from lmms_tokendrop.cli import app

POCKET, VILT = (str(pocket_path(name, "none")) for name in ("llava_next", "vilt"))


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *arguments], catch_exceptions=False)


def test_a_variant_is_planned_beside_the_unreduced_model():
    options = ("--model", "llava_next_fastv", "--model-args", "visual_tokens=48,K=3", "--image", "90x40")
    found = json.loads(invoke(POCKET, *options, "--text-tokens", "4+9", "--json").stdout)
    assert found["reduced"]["given"] == {"method": "fastv", "visual_tokens": 48, "K": 3}
    assert set(found["reduced"]["text_tokens"]) == {13}
    assert len(set(found["reduced"]["visual_tokens"][:3])) == 1 < len(set(found["reduced"]["visual_tokens"]))
    assert found["reduced"]["average_input"] == pytest.approx(48, abs=1)
    assert "0 to 2" in invoke(POCKET, *options).stdout


def test_a_budget_is_looked_for():
    options = ("--model", "llava_next_visionzip", "--memory", "2.5MB", "--concurrent", "2", "--new-tokens", "0")
    found = json.loads(invoke(POCKET, *options, "--json").stdout)
    assert found["reduced"]["given"]["visual_tokens"] == 2.5e6 // (2 * found["reduced"]["kv_bytes_per_token"]) - 60


NEXT, MUSTDROP = "llava-v1.6-vicuna-7b", ("--model", "llava_next_mustdrop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["llava-7b"],
            "target='llava-7b'; allowed: a configuration's file, a folder with one, or one of llava-1.5-13b,",
        ),
        ([str(pocket_path("llava_next", "none") / "model.safetensors")], "is not JSON"),
        ([NEXT, "--model", "vilt_pumer"], f"model='vilt_pumer'; allowed for {NEXT}: llava_next_full, "),
        ([NEXT, *MUSTDROP, "--model-args", "visual_token=9"], "unknown model argument 'visual_token'"),
        ([NEXT, *MUSTDROP, "--model-args", "dtype=float16"], "model_args: dtype; allowed: options of the method"),
        ([NEXT, *MUSTDROP, "--model-args", "visual_tokens=-1"], "visual_tokens=-1.0; allowed: a number from 1"),
        ([NEXT, "--image", "640"], "image='640'; allowed: width x height in pixels"),
        ([NEXT, "--image", "0x9"], "image='0x9'; allowed: width x height in pixels"),
        ([NEXT, "--image", "9x9", "--visual-tokens", "9"], "image and visual_tokens exclude each other"),
        ([NEXT, "--visual-tokens", "-1"], "visual_tokens=-1; allowed: a whole number from 0"),
        ([NEXT, *MUSTDROP, "--visual-tokens", "9"], "visual_tokens are those of every layer"),
        ([NEXT, "--text-tokens", "many"], "text_tokens='many'; allowed: a number behind the images"),
        ([NEXT, "--text-tokens", "32768+1"], "before+behind such as 35+25, up to 32768 together"),
        ([NEXT, *["--image", "9x9"] * 17], "image was given 17 times; allowed: up to 16"),
        ([POCKET, "--text-tokens", "9+0"], "text_tokens: 9+0; allowed: at least one behind the images"),
        ([NEXT, "--new-tokens", "-1"], "new_tokens=-1; allowed: a whole number from 0"),
        ([NEXT, "--concurrent", "0"], "concurrent=0; allowed: a whole number from 1"),
        ([NEXT, "--dtype", "int8"], "dtype='int8'; allowed: float16, bfloat16, float32"),
        ([NEXT, "--memory", "1 TB"], "memory='1 TB'; allowed: bytes, or a number with KB, MB, GB"),
        ([NEXT, "--memory", "1GB", "--speed-up", "2"], "memory and speed_up exclude each other"),
        ([NEXT, "--speed-up", "nan"], "speed_up=nan; allowed: a number from 1"),
        ([POCKET, "--speed-up", "2"], "memory and speed_up look for a budget, and 'none' has none"),
        (
            [POCKET, *MUSTDROP, "--model-args", "visual_tokens=9", "--speed-up", "2"],
            "visual_tokens is given, and memory and speed_up look for it",
        ),
        ([POCKET, "--model", "llava_next_visionzip", "--memory", "9"], "memory=9: no visual_tokens of visionzip meets"),
        ([POCKET, *MUSTDROP, "--speed-up", "9"], "smallest reachable average is"),
        ([VILT, "--model", "vilt_pumer", "--memory", "9GB"], "memory is that of a decoder's cache; vilt has none"),
        ([VILT, "--visual-tokens", "9"], "visual_tokens are those of a decoder's layers; for vilt"),
        ([VILT, "--image", "9x9", "--image", "9x9"], "image was given 2 times; allowed for vilt: once"),
        ([VILT, "--text-tokens", "41"], "text_tokens=41; allowed for vilt: 1 to 40"),
    ],
    ids=lambda value: "_".join(value).replace("-", "")[-50:] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_that_names_what_is_allowed(arguments, message):
    result = invoke(*arguments)
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
