"""The bundled checkpoint is complete, small, and answers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes
from pocket.llava_next import build_config, build_processor

FOLDER = pocket_path("llava_next", "none")


@pytest.fixture(scope="module")
def loaded():
    return LlavaNextForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32, output_loading_info=True)


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


def test_stock_class_loads_every_weight(loaded):
    model, info = loaded
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("model_class", [LlavaNextForConditionalGeneration, LlavaNextTokenDropForConditionalGeneration])
def test_the_keys_are_the_public_ones_and_the_old_ones_load_too(model_class, processor, tmp_path):
    weights = load_file(FOLDER / "model.safetensors")
    towers = {key for key in weights if key.startswith("vision_tower.")}
    assert all(key.startswith("vision_tower.vision_model.") for key in towers)
    assert {key for key in weights if key.startswith("language_model.model.")}
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    old = {key.replace("vision_tower.vision_model.", "vision_tower."): value for key, value in weights.items()}
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    scene, (question, *_) = next(iter(task_scenes(images=1)))
    inputs = processor(images=render(scene), text=f"<image>\n{question.text}", return_tensors="pt")
    first, second = (model_class.from_pretrained(folder, dtype=torch.float32) for folder in (FOLDER, tmp_path))
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(first(**inputs).logits, second(**inputs).logits)


def test_size():
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000


def test_saved_configuration_is_the_built_one(loaded, processor):
    built = build_config()
    model, _ = loaded
    for name in ("image_grid_pinpoints", "vision_feature_layer", "image_token_index"):
        assert getattr(model.config, name) == getattr(built, name)
    assert model.config.text_config.num_hidden_layers == 12
    assert processor.tokenizer.get_vocab() == build_processor().tokenizer.get_vocab()
    assert processor.tokenizer.padding_side == "left"


def test_answers_held_out_questions(loaded, processor):
    model, _ = loaded
    right, total = 0, 0
    for scene, asked in task_scenes(images=6):
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}],
                add_generation_prompt=True,
            )
            for question in asked
        ]
        inputs = processor(images=[render(scene)] * len(asked), text=texts, padding=True, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        answers = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(given == question.answer for given, question in zip(answers, asked, strict=True))
        total += len(asked)
    assert right / total > 0.6


def test_training_log_is_beside_the_weights():
    lines = [json.loads(line) for line in (FOLDER / "training_log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert any("validation" in line for line in lines)
