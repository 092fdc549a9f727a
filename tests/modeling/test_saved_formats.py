"""Options in configurations: a number says which rule and defaults they were saved under."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, TokenReductionConfig, pocket_path
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import LlavaNextTokenDropConfig
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

FORMAT_1 = json.loads((Path(__file__).parent / "format_1_answers.json").read_text())
"""What the last version without format numbers answered, and which places the last stage of each prompt left."""

FOLDER = pocket_path("llava_next", "mustdrop")


def prompts():
    """The first question of scene 0, the second of scene 10, the third of scene 20."""
    processor = AutoProcessor.from_pretrained(FOLDER)
    processor.tokenizer.padding_side = "left"
    scenes = list(islice(task_scenes(), 0, 30, 10))
    texts = []
    for number, (_, asked) in enumerate(scenes):
        content = [{"type": "image"}, {"type": "text", "text": asked[number].text}]
        texts.append(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
    images = [render(scene) for scene, _ in scenes]
    return processor, processor(images=images, text=texts, padding=True, return_tensors="pt")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A folder with the bundled model, in which a configuration of the version before can be written."""
    folder = tmp_path_factory.mktemp("earlier")
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(FOLDER).save_pretrained(folder)
    return folder


def save_options(folder: Path, options: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "token_reduction": options}))


@pytest.mark.parametrize("case", FORMAT_1, ids=lambda case: json.dumps(case["saved"]))
def test_a_config_saved_by_the_version_before_gives_the_answers_that_it_gave(earlier, case):
    save_options(earlier, case["saved"])
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(earlier)
    processor, inputs = prompts()
    output = model.generate(
        **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, sample_seeds=torch.arange(3)
    )
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    assert [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)] == case["answers"]
    report = cache_of(output).report()
    assert report.visual_tokens_per_layer == case["visual_tokens_per_layer"]
    assert report.forced_merges == case["forced_merges"]
    assert report.kv_lengths == case["kv_lengths"]
    last = list(report.kept.values())[-1]
    assert [" ".join(f"{tile}{row}{column}" for _, tile, row, column in places) for places in last] == case["kept"]


def test_the_answers_of_the_version_before_are_not_today_s_by_accident(earlier):
    case = FORMAT_1[0]
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(FOLDER, token_reduction=case["saved"])
    _, inputs = prompts()
    with torch.no_grad():
        report = cache_of(model(**inputs, use_cache=True)).report()
    assert report.visual_tokens_per_layer != case["visual_tokens_per_layer"]


def test_an_earlier_format_stays_when_it_is_saved_again(earlier, tmp_path):
    save_options(earlier, {"method": "mustdrop", "keep_ratio": 0.25})
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(earlier)
    model.save_pretrained(tmp_path)
    again = LlavaNextTokenDropConfig.from_pretrained(tmp_path).token_reduction
    assert again == model.config.token_reduction
    assert (again["format"], again["newlines"], again["counter"], again["compact_first_layers"]) == (
        1,
        "row",
        "input",
        True,
    )


def test_lmms_eval_s_loader_reads_an_earlier_format_too(earlier):
    save_options(earlier, {"method": "mustdrop", "keep_ratio": 0.25})
    options = LoadOptions(pretrained=str(earlier))
    model, _ = load_model("llava_next", "mustdrop", options, {"keep_ratio": 0.5}, torch.device("cpu"))
    assert (model.config.token_reduction["format"], model.config.token_reduction["keep_ratio"]) == (1, 0.5)
    other, _ = load_model("llava_next", "random", options, {}, torch.device("cpu"))
    assert other.config.token_reduction["format"] == 3


def test_configurations_carry_the_format_and_every_option_of_the_method():
    saved = LlavaNextTokenDropConfig(token_reduction={"method": "mustdrop", "layers": [1]}).to_dict()["token_reduction"]
    assert saved == {
        "method": "mustdrop",
        "format": 3,
        "keep_ratio": 1 / 9,
        "scope": "image",
        "counter": "release",
        "merge_threshold": 0.8,
        "key_ratio": 0.08,
        "text_ratio": 1.0,
        "layers": [1],
        "newlines": "drop",
        "compact_first_layers": False,
        "decode_drop_ratio": 0.1,
        "decode_floor": 1,
        "position_mode": "original",
        "merge_count": "window",
        "merge_order": "raster",
        "packing": "spatial",
    }
    assert LlavaNextTokenDropConfig(token_reduction=saved).token_reduction == saved


def test_a_format_of_a_later_version_is_refused():
    with pytest.raises(ValueError, match=r"format=4; allowed: a whole number from 1 to 3"):
        TokenReductionConfig.from_dict({"method": "mustdrop", "format": 4})


@pytest.mark.parametrize("packing", ["spatial", "flat"])
def test_format_1_can_be_asked_for(packing):
    config = TokenReductionConfig.from_dict({"method": "mustdrop", "format": 1, "packing": packing})
    assert (config.counter, config.compact_first_layers) == ("input", True)
    assert config.newlines == ("row" if packing == "spatial" else "drop")
    assert TokenReductionConfig.from_dict(config.to_dict()) == config
    preset = TokenReductionConfig.from_dict({"method": "mustdrop", "format": 1, "preset": "320"})
    assert preset.counter == "release"
