"""A loaded model with another method or budget: the logits of one loaded so, for good, for a context, for a thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from cases import METHODS, greedy, stacked_logits
from fusion_architectures import ARCHITECTURES
from keyed_weights import with_clip
from tiny_models import tiny_image
from transformers import AutoProcessor

from lmms_tokendrop import (
    LlavaNextTokenDropForConditionalGeneration,
    LlavaTokenDropForConditionalGeneration,
    StagedCache,
    ViltTokenDropConfig,
    cache_of,
    set_token_reduction,
    use_token_reduction,
)
from lmms_tokendrop.modeling.methods.available import reductions

COMPOSED = {"vision": "vision_tome", "decoder": "mustdrop", "keep_ratio": 0.4}
RANDOM, FASTV = {"method": "random", "keep_ratio": 0.3}, {"method": "fastv", "R": 0.6}


def check_switching(load, logits, cases):
    """One model takes every setting in turn and gives what one that was loaded with it does."""
    model = load(cases[-1])
    for options in cases:
        fresh = load(options)
        set_token_reduction(model, options)
        assert torch.equal(logits(model), logits(fresh)), options
        assert model.config.token_reduction == fresh.config.token_reduction


def load_llava_next(workshop, options):
    return LlavaNextTokenDropForConditionalGeneration.from_pretrained(workshop.checkpoint(), token_reduction=options)


def test_llava_next_takes_every_method(workshop):
    inputs = workshop.inputs("ragged_batch")
    methods = [with_clip(case, workshop.checkpoint()) for case in METHODS.values()]
    cases = [*methods, COMPOSED, METHODS["none"], METHODS["budget"]]
    assert {reductions("llava_next").from_dict(case).method for case in cases} == set(reductions("llava_next").reducers)
    check_switching(
        lambda options: load_llava_next(workshop, options),
        lambda model: stacked_logits(greedy(model, inputs, steps=2)),
        cases,
    )


def test_llava_takes_every_method(tiny_llava_checkpoint):
    processor = AutoProcessor.from_pretrained(tiny_llava_checkpoint)
    inputs = processor(images=[tiny_image()], text=["USER: <image>\nyes or no ? ASSISTANT:"], return_tensors="pt")

    def load(options):
        return LlavaTokenDropForConditionalGeneration.from_pretrained(tiny_llava_checkpoint, token_reduction=options)

    own = reductions("llava")
    methods = [with_clip(case, tiny_llava_checkpoint) for case in METHODS.values()]
    cases = [{name: value for name, value in case.items() if name not in own.implied} for case in methods]
    check_switching(load, lambda model: stacked_logits(greedy(model, inputs, steps=2)), [*cases, COMPOSED])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_encoder_takes_every_method_without_parameters_of_its_own(fusion_checkpoint, name):
    architecture = ARCHITECTURES[name]
    inputs = architecture.inputs("ragged")

    def load(options):
        return architecture.question_answering.from_pretrained(fusion_checkpoint(name), token_reduction=options).eval()

    cases = [case for case in architecture.methods.values() if case["method"] != "dynamicvit"]
    check_switching(load, lambda model: model(**inputs).logits, cases)


def test_two_threads_with_two_settings_do_not_mix(workshop):
    """Both wait for each other in the middle of each pass, after their settings were chosen and before layers end."""
    inputs, model = workshop.inputs("one_image"), workshop.reduced("none")
    settings = (FASTV, RANDOM)
    barrier = Barrier(2, timeout=60)
    expected = [stacked_logits(greedy(workshop.reduced(options), inputs)) for options in settings]

    def answer(options):
        with use_token_reduction(model, options):
            return stacked_logits(greedy(model, inputs))

    def meet(*_):
        barrier.wait()

    hook = model.model.language_model.layers[0].register_forward_pre_hook(meet)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(answer, settings))
    hook.remove()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_context_ends_with_an_error_and_the_inner_one_holds(workshop):
    inputs, model = workshop.inputs("one_image"), workshop.reduced("none")

    def counted():
        return cache_of(model(**inputs)).left.shape[1]

    whole = counted()
    with use_token_reduction(model, RANDOM):
        outer = counted()
        with use_token_reduction(model, {**RANDOM, "keep_ratio": 0.1}):
            assert counted() < outer < whole
        with pytest.raises(ValueError, match="two steps"), use_token_reduction(model, FASTV):
            raise ValueError("two steps")
        assert counted() == outer
        assert model.config.token_reduction == {"method": "none"}
    assert counted() == whole


def test_what_was_set_is_saved(workshop, tmp_path):
    model = load_llava_next(workshop, None)
    set_token_reduction(model, RANDOM)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).model.token_reducer.options
    assert loaded == load_llava_next(workshop, RANDOM).model.token_reducer.options


def test_a_cache_goes_on_with_the_options_that_filled_it_alone(workshop):
    inputs, model = workshop.inputs("one_image"), workshop.reduced("none")
    cache = StagedCache(model.config.get_text_config())
    step = {"input_ids": inputs["input_ids"][:, -1:], "past_key_values": cache}
    with use_token_reduction(model, RANDOM):
        model(**inputs, past_key_values=cache)
    with pytest.raises(ValueError, match=r"cache was filled with .*random.*'none'.*start a new cache"):
        model(**step)
    with use_token_reduction(model, RANDOM):
        model(**step)
    assert cache.seen == inputs["input_ids"].shape[1] + 1


@pytest.fixture(scope="module")
def trained(fusion_checkpoint):
    """A ViLT with predictors of its own."""
    return ARCHITECTURES["vilt"].question_answering.from_pretrained(
        fusion_checkpoint("vilt"),
        token_reduction={"method": "dynamicvit"},
        new_parameters=("vilt.token_reducer.",),
    )


def test_parameters_of_a_method_stay_with_another_budget(trained):
    inputs = ARCHITECTURES["vilt"].inputs("whole")
    with use_token_reduction(trained, {"method": "dynamicvit", "keep_ratio": 0.3}):
        used, few = trained.vilt.used_reducer, trained(**inputs)
    assert [id(value) for value in used.parameters()] == [
        id(value) for value in trained.vilt.token_reducer.parameters()
    ]
    config = ViltTokenDropConfig(**{**trained.config.to_dict(), "token_reduction": used.options.to_dict()})
    fresh = type(trained)(config).eval()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(few.logits, fresh(**inputs).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "random"}, r"loaded with method 'dynamicvit'.*'random'.*load it anew"),
        ({"method": "dynamicvit", "layers": [1]}, r"parameters are not those.*predictors"),
        ({"method": "mustdrop"}, r"method='mustdrop'; allowed: "),
        ({"method": "dynamicvit", "keep_ratio": 2}, r"keep_ratio=2; allowed"),
    ],
)
def test_what_the_weights_or_the_architecture_do_not_allow_is_refused(trained, options, message):
    reducer, saved = trained.vilt.token_reducer, dict(trained.config.token_reduction)
    for switch in (set_token_reduction, lambda *given: use_token_reduction(*given).__enter__()):
        with pytest.raises(ValueError, match=message):
            switch(trained, options)
    assert trained.vilt.used_reducer is reducer
    assert trained.config.token_reduction == saved


def test_stock_models_are_refused(workshop):
    with pytest.raises(
        ValueError, match="model is a LlavaNextForConditionalGeneration; allowed: a model of lmms_token"
    ):
        set_token_reduction(workshop.stock(), RANDOM)
