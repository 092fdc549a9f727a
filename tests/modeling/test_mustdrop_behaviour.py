"""What MustDrop is for: key tokens are there to the end, and beyond them the text decides what stays."""

from __future__ import annotations

import re
from itertools import islice

import pytest
import torch
from cases import PROMPTS
from mustdrop_reference import MustDropReference
from tiny_models import TEXT_BACKBONES
from transformers import AutoProcessor

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, pocket_path
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

FOLDER = pocket_path("llava_next", "mustdrop")
SMALLEST = re.compile(r"smallest reachable average is (\d+\.\d+)")


@torch.no_grad()
def cache_after(model, inputs):
    return cache_of(model(**inputs, use_cache=True))


def at_smallest_budget(workshop, text: str, inputs: dict, **options):
    """The cache after a prefill at the smallest reachable budget, and the options."""
    options = {"method": "mustdrop", "newlines": "drop", "scope": "request", **options}
    with pytest.raises(ValueError, match=SMALLEST) as refused:
        cache_after(workshop.reduced({**options, "visual_tokens": 1}, text), inputs)
    options["visual_tokens"] = float(SMALLEST.search(str(refused.value))[1]) + 0.01
    return cache_after(workshop.reduced(options, text), inputs), options


@pytest.mark.parametrize("counter", ["input", "release"])
@pytest.mark.parametrize("prompt", ["one_image", "two_images", "odd_aspect"])
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_the_tokens_that_cls_attends_most_are_in_every_layer_at_the_smallest_budget(workshop, text, prompt, counter):
    """Which these are is found with the stock tower; nothing else stays to the end."""
    inputs = workshop.inputs(PROMPTS[prompt])
    cache, options = at_smallest_budget(workshop, text, inputs, counter=counter, key_ratio=0.15)
    stated = {"merge_threshold": 0.8, "text_ratio": 1.0, "layers": None, "compact_first_layers": False, **options}
    reference = MustDropReference(workshop.stock(text, "eager"), stated, inputs)
    reference.encode()
    keys = {token.place for token in reference.tokens if token.key}
    visual = {token.place for token in reference.tokens}
    received = [set(record.index[0].tolist()) for record in cache.records]
    held = [set(layer.entries.place[0].tolist()) for layer in cache.layers]
    assert all(keys <= places for places in received + held)
    assert received[-1] & visual == held[-1] & visual == keys


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


def asked(processor, scene, question: str) -> dict:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(images=[render(scene)], text=[prompt], return_tensors="pt"))


def stages(model, inputs: dict) -> list[tuple[set[int], set[int]]]:
    """After each stage, the places of key tokens and of the other visual tokens."""
    cache = cache_after(model, inputs)
    found = []
    for record in cache.records:
        visual, key = cache.provenance(record.index).visual, record.carry.get("key", record.index < 0)
        found.append(tuple(set(record.index[marks].tolist()) for marks in (key, visual & ~key)))
    return found


@pytest.mark.parametrize("budget", [48, 96])
def test_beyond_key_tokens_the_question_decides_what_stays(processor, budget):
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        FOLDER, token_reduction={"method": "mustdrop", "visual_tokens": budget}
    )
    for scene, questions in islice(task_scenes(), 5):
        first, other = questions[0], next(q for q in questions if q.cells != questions[0].cells)
        merged, *drops = stages(model, asked(processor, scene, first.text))
        merged_for_other, *drops_for_other = stages(model, asked(processor, scene, other.text))
        assert merged == merged_for_other, "merging and key tokens are the picture's"
        for (keys, others), (same_keys, different) in zip(drops, drops_for_other, strict=True):
            assert keys == same_keys == merged[0]
            assert others != different


def test_random_dropping_does_not_read_the_question(processor):
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        FOLDER, token_reduction={"method": "random", "visual_tokens": 48}
    )
    for scene, (first, second, *_) in islice(task_scenes(), 5):
        assert stages(model, asked(processor, scene, first.text)) == stages(model, asked(processor, scene, second.text))
