"""LLaVA-1.5: keeping everything is the stock model, dropping is masking, counts are the budget's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from cases import METHODS, PROMPTS, WHOLE_CACHES, greedy, largest_difference, masks, merges_windows, stacked_logits
from keyed_weights import with_clip
from masked_reference import masked_generation
from safetensors.torch import load_file
from tiny_models import TEXT_BACKBONES, TEXT_CONFIGS, save_tiny_llava, tiny_image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lmms_tokendrop import LlavaTokenDropForConditionalGeneration, cache_of
from lmms_tokendrop.modeling.core.decoder_options import WITHOUT_NEWLINES

SOME_PROMPTS = ("text_only", "two_images", "ragged_batch")
FOR_LLAVA_NEXT = {
    "none": METHODS["none"],
    "budget": {"method": "mustdrop", "keep_ratio": 0.45, "merge_threshold": 0.6, "compact_first_layers": True},
    "threshold": METHODS["threshold"],
    "request": {"method": "mustdrop", "visual_tokens": 20, "scope": "request", "compact_first_layers": True},
    "random": METHODS["random"],
    "uniform": METHODS["uniform"],
    "fastv": METHODS["fastv"],
    "visionzip": METHODS["visionzip"],
    "divprune": METHODS["divprune"],
    "cdpruner": METHODS["cdpruner"],
    "prumerge": METHODS["prumerge"],
    "scope": METHODS["scope"],
    "hiprune_like": METHODS["hiprune_like"],
    "starpro_like": METHODS["starpro_like"],
    "area_pooling": METHODS["area_pooling"],
    "sparsevlm": METHODS["sparsevlm"],
    "pyramiddrop": METHODS["pyramiddrop"],
    "dart": METHODS["dart"],
}
REDUCTIONS = {
    name: {option: value for option, value in reduction.items() if option not in WITHOUT_NEWLINES}
    for name, reduction in FOR_LLAVA_NEXT.items()
}
KEEP_ALL = {
    "none": {"method": "none"},
    "mustdrop": {"method": "mustdrop", "merge_threshold": 1.1, "global_threshold": 0.0, "individual_threshold": 0.0},
    "random": {"method": "random", "keep_ratio": 1.0},
    "uniform": {"method": "uniform", "keep_ratio": 1.0},
    "fastv": {"method": "fastv", "R": 0.0},
    "visionzip": {"method": "visionzip", "keep_ratio": 1.0},
    "divprune": {"method": "divprune", "keep_ratio": 1.0},
    "cdpruner": {"method": "cdpruner", "keep_ratio": 1.0, "clip": "clip"},
    "prumerge": {"method": "prumerge", "keep_ratio": 1.0},
    "scope": {"method": "scope", "keep_ratio": 1.0},
    "hiprune_like": {"method": "hiprune_like", "keep_ratio": 1.0},
    "starpro_like": {"method": "starpro_like", "keep_ratio": 1.0},
    "area_pooling": {"method": "area_pooling", "keep_ratio": 1.0},
    "sparsevlm": {"method": "sparsevlm", "keep_ratio": 1.0},
    "pyramiddrop": {"method": "pyramiddrop", "stage_ratio": 1.0},
    "dart": {"method": "dart", "R": 0.0},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints by text backbone, with matrices halved, so that logits are of order one."""
    made = {}
    for text in TEXT_CONFIGS:
        made[text] = save_tiny_llava(tmp_path_factory.mktemp(f"llava_{text}"), text)
        model = LlavaForConditionalGeneration.from_pretrained(made[text])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5 if parameter.ndim >= 2 else 1.0)
        model.save_pretrained(made[text])
    return made


@pytest.fixture
def inputs(folders):
    """Return `make(prompt)`: inputs of a name of `PROMPTS`."""
    processor = AutoProcessor.from_pretrained(folders["llama"])

    def make(prompt: str) -> dict[str, torch.Tensor]:
        texts, sizes = zip(*PROMPTS[prompt], strict=True)
        images = [tiny_image(*size, seed=sum(size)) for row in sizes for size in row]
        return dict(processor(images=images or None, text=list(texts), padding=True, return_tensors="pt"))

    return make


def reduced(folder, options: dict) -> LlavaTokenDropForConditionalGeneration:
    reduction = with_clip(options, folder)
    return LlavaTokenDropForConditionalGeneration.from_pretrained(folder, token_reduction=reduction).eval()


@cache
def stock(folder: Path) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


@torch.no_grad()
@pytest.mark.parametrize("prompt", SOME_PROMPTS)
@pytest.mark.parametrize("method", KEEP_ALL)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_keeping_all_is_bitwise_stock(folders, inputs, text, method, prompt):
    batch = inputs(prompt)
    real = batch["attention_mask"].bool()
    ours, theirs = reduced(folders[text], KEEP_ALL[method]), stock(folders[text])
    assert torch.equal(ours(**batch).logits[real], theirs(**batch).logits[real])
    actual, expected = greedy(ours, batch), greedy(theirs, batch)
    assert torch.equal(actual.sequences, expected.sequences)
    assert torch.equal(stacked_logits(actual), stacked_logits(expected))


@pytest.mark.parametrize("prompt", SOME_PROMPTS)
@pytest.mark.parametrize("method", [name for name, options in REDUCTIONS.items() if masks(options)])
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_dropping_equals_the_masked_reference(folders, inputs, text, method, prompt):
    batch = inputs(prompt)
    output = greedy(reduced(folders[text], REDUCTIONS[method]), batch)
    follow = {"compacted_from": WHOLE_CACHES.get(method, 0), "windows": merges_windows(REDUCTIONS[method])}
    expected = masked_generation(stock(folders[text]), batch, output, "sdpa", **follow)
    assert largest_difference(stacked_logits(output), expected) <= 1e-5


@pytest.mark.parametrize("method", [name for name in REDUCTIONS if name != "none"])
def test_every_image_is_reduced_from_36_tokens_without_newlines(folders, inputs, method):
    report = cache_of(greedy(reduced(folders["llama"], REDUCTIONS[method]), inputs("two_images"), 1)).report()
    assert report.full_visual_tokens == [72]
    assert report.reduced == [True]
    places = {place[1:] for rows in report.kept.values() for place in rows[0]}
    assert places <= {(0, row, column) for row in range(6) for column in range(6)}


@pytest.mark.parametrize("method", ["mustdrop", "random", "uniform", "fastv", "sparsevlm", "pyramiddrop", "dart"])
@pytest.mark.parametrize("prompt", ["one_image", "ragged_batch"])
def test_a_budget_is_an_average_per_image(folders, inputs, method, prompt):
    early = {"mustdrop": {"layers": [0]}, "fastv": {"K": 1}, "dart": {"K": 1}}.get(method, {})
    model = reduced(folders["llama"], {"method": method, "visual_tokens": 15, **early})
    report = cache_of(greedy(model, inputs(prompt), 1)).report()
    assert report.average_visual_tokens == pytest.approx([15] * len(PROMPTS[prompt]), abs=0.5)


def test_padded_rows_train_where_nothing_leaves(folders, inputs):
    model = reduced(folders["llama"], {"method": "random", "keep_ratio": 1.0}).train()
    batch = inputs("beside_long_text")
    assert not batch["attention_mask"].all()
    model(**batch).logits.square().mean().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_placeholders_without_images_are_refused(folders, inputs):
    batch = inputs("one_image")
    batch.pop("pixel_values")
    with pytest.raises(ValueError, match="image placeholders, but there are no pixel_values"):
        reduced(folders["llama"], REDUCTIONS["random"])(**batch)


def test_a_saved_model_comes_back_with_the_public_names_of_weights(folders, inputs, tmp_path):
    model = reduced(folders["llama"], REDUCTIONS["budget"])
    model.save_pretrained(tmp_path)
    again = LlavaTokenDropForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.token_reduction == model.config.token_reduction
    assert again.config.model_type == "llava_tokendrop"
    batch = inputs("one_image")
    assert torch.equal(greedy(again, batch, 2).sequences, greedy(model, batch, 2).sequences)
    names = {name.partition(".")[0] for name in load_file(tmp_path / "model.safetensors")}
    assert names == {"language_model", "multi_modal_projector", "vision_tower"}
