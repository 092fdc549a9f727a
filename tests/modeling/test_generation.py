"""Generation: with and without a cache, beams, sampling, several sequences; scoring answers; what can't work."""

from __future__ import annotations

import pytest
import torch
from cases import KEEP_ALL, METHODS, PROMPTS, greedy, largest_difference, stacked_logits
from transformers import DynamicCache, StaticCache

from lmms_tokendrop.modeling.core.transformers_compat import CACHE, cache_argument, cache_of

BEAMS = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("method", METHODS)
def test_without_a_cache_the_answer_is_the_same(workshop, method, prompt):
    model, inputs = workshop.reduced(method), workshop.inputs(prompt)
    with_cache, without = greedy(model, inputs), greedy(model, inputs, use_cache=False)
    assert torch.equal(with_cache.sequences, without.sequences)
    assert largest_difference(stacked_logits(with_cache), stacked_logits(without)) <= 1e-5


@pytest.mark.parametrize("options", [{"compact_first_layers": False}, {"position_mode": "compact"}])
def test_without_a_cache_the_switches_act_the_same(workshop, options):
    model, inputs = workshop.reduced({**METHODS["budget"], **options}), workshop.inputs("ragged_batch")
    with_cache, without = greedy(model, inputs), greedy(model, inputs, use_cache=False)
    assert largest_difference(stacked_logits(with_cache), stacked_logits(without)) <= 1e-5


@pytest.mark.parametrize("prompt", ["two_images", "ragged_batch"])
@pytest.mark.parametrize("method", METHODS)
class TestBeams:
    def test_with_and_without_a_cache_agree(self, workshop, method, prompt):
        model, inputs = workshop.reduced(method), workshop.inputs(prompt)
        with_cache = model.generate(**inputs, **BEAMS, output_scores=True)
        without = model.generate(**inputs, **BEAMS, output_scores=True, use_cache=False)
        assert torch.equal(with_cache.sequences, without.sequences)
        assert largest_difference(with_cache.sequences_scores, without.sequences_scores) <= 1e-5

    def test_a_batch_equals_its_rows(self, workshop, method, prompt):
        model, inputs = workshop.reduced(method), workshop.inputs(prompt)
        together = model.generate(**inputs, **BEAMS, output_scores=True)
        for row, single in enumerate(PROMPTS[prompt]):
            alone = model.generate(**workshop.inputs([single]), **BEAMS, output_scores=True)
            assert torch.equal(together.sequences[row, -5:], alone.sequences[0, -5:])
            assert abs(together.sequences_scores[row] - alone.sequences_scores[0]) <= 1e-5


@pytest.mark.parametrize("method", KEEP_ALL)
def test_keep_all_beams_are_stock_beams(workshop, method):
    inputs = workshop.inputs("ragged_batch")
    expected = workshop.stock().generate(**inputs, **BEAMS).sequences
    assert torch.equal(workshop.reduced(KEEP_ALL[method]).generate(**inputs, **BEAMS).sequences, expected)


@pytest.mark.parametrize("method", METHODS)
def test_several_return_sequences_start_from_the_same_prompt(workshop, method):
    model, inputs = workshop.reduced(method), workshop.inputs("two_images")
    torch.manual_seed(0)
    output = greedy(model, inputs, do_sample=True, num_return_sequences=3)
    assert output.sequences.shape[0] == 3
    first = stacked_logits(output)[:, 0]
    assert largest_difference(first, stacked_logits(greedy(model, inputs))[:, 0].expand(3, -1)) <= 1e-5
    report = cache_of(output).report()
    assert all(rows[0] == rows[1] == rows[2] for rows in report.kept.values())


@pytest.mark.parametrize("method", METHODS)
def test_sampling_is_reproducible_and_independent_of_the_cache(workshop, method):
    model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")

    def sample(**options):
        torch.manual_seed(1)
        return model.generate(**inputs, max_new_tokens=5, do_sample=True, eos_token_id=None, **options)

    assert torch.equal(sample(), sample())
    assert torch.equal(sample(), sample(use_cache=False))
    assert not torch.equal(sample(), greedy(model, inputs).sequences)


def test_inputs_embeds_of_a_text_prompt_generate_the_same(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("text_only")
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    output = greedy(model, {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]})
    assert torch.equal(output.sequences, greedy(model, inputs).sequences[:, -5:])


def answer_cases(workshop, method):
    inputs = workshop.inputs("ragged_batch")
    answers = torch.tensor([[20, 21, 22], [30, 31, 32]])
    model = workshop.reduced(method)
    ids = torch.cat([inputs["input_ids"], answers], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(answers)], dim=1)
    return model, inputs, answers, ids, mask


@pytest.mark.parametrize("method", METHODS)
class TestScoring:
    @torch.no_grad()
    def test_an_answer_on_a_copy_of_the_cache_equals_the_whole_forward(self, workshop, method):
        model, inputs, answers, ids, mask = answer_cases(workshop, method)
        prompt = inputs["input_ids"].shape[1]
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        images = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
        whole = model(input_ids=ids, attention_mask=mask, position_ids=positions, **images, prompt_length=prompt)
        cache = cache_of(model(**inputs, position_ids=positions[:, :prompt], use_cache=True))
        scored = model(
            input_ids=answers,
            attention_mask=mask,
            position_ids=positions[:, prompt:],
            **cache_argument(cache.copy()),
            use_cache=True,
        )
        assert largest_difference(whole.logits[:, -3:], scored.logits) <= 1e-5

    @torch.no_grad()
    def test_candidates_do_not_change_what_is_kept(self, workshop, method):
        model, inputs, _, ids, mask = answer_cases(workshop, method)
        prompt = inputs["input_ids"].shape[1]
        images = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
        plain = cache_of(model(**inputs, use_cache=True)).report().kept
        for answer in (ids[:, prompt:], ids[:, prompt:] + 200):
            whole = torch.cat([ids[:, :prompt], answer], dim=1)
            output = model(input_ids=whole, attention_mask=mask, **images, prompt_length=prompt, use_cache=True)
            assert cache_of(output).report().kept == plain

    @torch.no_grad()
    def test_scored_answers_have_the_logits_of_generated_ones(self, workshop, method):
        model, inputs, *_ = answer_cases(workshop, method)
        output = greedy(model, inputs, steps=4)
        prompt = inputs["input_ids"].shape[1]
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 4, dtype=torch.long)], dim=1)
        images = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        whole = model(
            input_ids=output.sequences, attention_mask=mask, position_ids=positions, **images, prompt_length=prompt
        )
        assert largest_difference(whole.logits[:, -5:-1], stacked_logits(output)) <= 1e-5


class TestErrors:
    def test_a_static_cache_is_named(self, workshop):
        with pytest.raises(ValueError, match="cache_implementation='static'"):
            greedy(workshop.reduced("budget"), workshop.inputs("one_image"), cache_implementation="static")

    def test_chunked_prefill_is_named(self, workshop):
        with pytest.raises(ValueError, match="prefill_chunk_size"):
            greedy(workshop.reduced("budget"), workshop.inputs("one_image"), prefill_chunk_size=8)

    def test_an_assistant_is_named(self, workshop):
        model = workshop.reduced("budget")
        with pytest.raises(ValueError, match="assistant_model"):
            greedy(model, workshop.inputs("one_image"), assistant_model=workshop.stock())

    def test_prompt_lookup_is_named(self, workshop):
        with pytest.raises(ValueError, match="prompt_lookup_num_tokens"):
            greedy(workshop.reduced("budget"), workshop.inputs("one_image"), prompt_lookup_num_tokens=3)

    @pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
    def test_a_cache_of_another_class_is_named(self, workshop, kind):
        config = workshop.stock().config.text_config
        cache = kind(config=config, max_cache_len=200) if kind is StaticCache else kind(config=config)
        model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
        with pytest.raises(ValueError, match=f"{CACHE} must.*{kind.__name__}"):
            greedy(model, inputs, **cache_argument(cache))
        with pytest.raises(ValueError, match=f"{CACHE} must.*{kind.__name__}"):
            model(**inputs, **cache_argument(cache))


@pytest.mark.parametrize("method", ["budget", "random"])
def test_images_that_share_a_request_s_budget_are_generated_from_alike(workshop, method):
    """The images of each request are told from the prompt in forward, and in generate before it."""
    model = workshop.reduced({**METHODS[method], "scope": "request"})
    inputs = workshop.inputs([PROMPTS["two_images"][0], PROMPTS["one_image"][0]])
    with torch.no_grad():
        expected = cache_of(model(**inputs, use_cache=True)).report().kept
    assert cache_of(greedy(model, inputs, 2)).report().kept == expected
    assert (
        largest_difference(
            stacked_logits(greedy(model, inputs)), stacked_logits(greedy(model, inputs, use_cache=False))
        )
        <= 1e-5
    )
    beams = cache_of(model.generate(**inputs, **BEAMS)).report().kept
    assert beams == {stage: [row for row in rows for _ in range(3)] for stage, rows in expected.items()}
