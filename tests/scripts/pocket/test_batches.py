"""Training inputs are what the stock processor gives at inference."""

import numpy as np
import pytest
import torch

from lmms_tokendrop.pocket.questions import ask
from lmms_tokendrop.pocket.scenes import make_scene, render
from pocket.batches import encode_question, pack, patch_labels, stack_images, tile_positions
from pocket.curriculum import STAGES, training_batch
from pocket.llava_next import build_model, build_processor
from pocket.losses import HIDDEN
from pocket.stages import stage_at


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model():
    return build_model().eval()


def user(text, image=True):
    return {"role": "user", "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def scene_and_questions(cells, seed=1, number=4):
    rng = np.random.default_rng(seed)
    scene = make_scene(rng, cells, (4, 6))
    return scene, ask(scene, rng, number)


@pytest.mark.parametrize("cells", [3, 4, 6])
def test_fast_path_equals_the_processor(processor, cells):
    scene, asked = scene_and_questions(cells)
    image = render(scene)
    chat = [
        user(asked[0].text),
        assistant(asked[0].answer),
        user(asked[1].text, image=False),
        assistant(asked[1].answer),
    ]
    expected = processor(images=image, text=processor.apply_chat_template(chat), return_tensors="pt")
    packed, _ = pack([[encode_question(question) for question in asked[:2]]], image.size[0], independent=False)
    fast = stack_images([np.asarray(image)])
    assert torch.equal(packed["input_ids"], expected["input_ids"])
    assert torch.equal(fast["pixel_values"], expected["pixel_values"])
    assert torch.equal(fast["image_sizes"], expected["image_sizes"])


def test_position_before_the_answer_ends_the_inference_prompt(processor):
    scene, asked = scene_and_questions(6)
    packed, _ = pack([[encode_question(asked[0])]], 96, independent=True)
    prompt = processor.apply_chat_template([user(asked[0].text)], add_generation_prompt=True)
    expected = processor(images=render(scene), text=prompt, return_tensors="pt")["input_ids"]
    end = packed["guide_positions"][0] + 1
    assert torch.equal(packed["input_ids"][:, :end], expected)
    assert processor.tokenizer.decode(packed["input_ids"][0, end:]) == f"{asked[0].answer} </s>"


@torch.no_grad()
def test_independent_questions_equal_questions_asked_alone(model, processor):
    scene, asked = scene_and_questions(6)
    images = stack_images([np.asarray(render(scene))])
    packed, _ = pack([[encode_question(question) for question in asked]], 96, independent=True)
    logits = model(
        input_ids=packed["input_ids"],
        position_ids=packed["position_ids"],
        attention_mask=torch.where(packed["attention_mask"], 0.0, HIDDEN),
        **images,
    ).logits
    for number, question in enumerate(asked):
        prompt = processor.apply_chat_template([user(question.text)], add_generation_prompt=True)
        alone = model(**processor(images=render(scene), text=prompt, return_tensors="pt")).logits[0, -1]
        torch.testing.assert_close(logits[0, packed["guide_positions"][number]], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cells", [3, 6])
def test_tile_positions_carry_the_labels_of_their_cells(cells):
    scene, _ = scene_and_questions(cells)
    labels = patch_labels(scene)
    side = 12 if cells == 6 else 6
    for (row, column), item in scene.objects.items():
        for position in tile_positions([(row, column)], 16 * cells):
            line, place = divmod(position - 36, side + 1)
            tile = 1 + (line // 6) * (side // 6) + place // 6
            assert (labels[tile, (line % 6) * 6 + place % 6] == np.array(item) + 1).all()


def test_training_batch_depends_on_seed_and_step_only():
    first, second, other = training_batch(0, 3), training_batch(0, 3), training_batch(0, 4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["pixel_values"], other["pixel_values"])


def test_stages_follow_each_other():
    assert [stage_at(STAGES, step).cells for step in (0, 1099, 1100, 10**6)] == [3, 3, 6, 6]
