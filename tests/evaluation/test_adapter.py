"""The adapter through lmms-eval itself, on tiny random models."""

import pytest
from fewer_tokens import FEWER_TOKENS
from keyed_weights import with_clip
from lmms_eval.models import get_model
from lmms_results import answers, counts
from sizes import some_fast
from tiny_models import TEXT_BACKBONES
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop
from lmms_tokendrop.modeling.core.decoder_options import BudgetOptions
from lmms_tokendrop.modeling.core.reducer import Keep
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.modeling.methods.random_drop import RandomDrop

LLAVA_VARIANTS = variants(architecture="llava_next")
BATCHED = [entry for entry in LLAVA_VARIANTS if entry.method in ("none", "mustdrop", "random", "cdpruner", "sparsevlm")]

SHARES = {"none": 1.0, "vision_tome": 21 / 36, "area_pooling": 0.25}
"""Of the tokens, what they leave if it is not what most do: 5 of 36 merge in 3 blocks, 3 x 3 are left of 6 x 6."""


def losses(results: dict, task: str = "tiny_choice") -> list[float]:
    return [loss for sample in answers(results, task) for loss, _ in sample]


def stock_prompt(processor, document: dict) -> str:
    content = [{"type": "image"} for _ in document["images"]] + [{"type": "text", "text": document["question"]}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_full_answers_equal_the_stock_class(evaluate, tiny_checkpoint, documents, text):
    path = tiny_checkpoint(text)
    model = LlavaNextForConditionalGeneration.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    expected = []
    for document in documents:
        prompt = stock_prompt(processor, document)
        inputs = processor(text=prompt, images=document["images"] or None, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new_ids = output[0, inputs["input_ids"].shape[1] :]
        expected.append([processor.decode(new_ids, skip_special_tokens=True).strip()])
    results = evaluate("llava_next_full", "tiny_generate", pretrained=path, batch_size=3)
    assert [[text.strip() for text in given] for given in answers(results, "tiny_generate")] == expected
    assert len({answer for [answer] in expected}) > 3


@pytest.mark.parametrize("entry", BATCHED, ids=lambda entry: entry.model_id)
def test_answers_and_costs_do_not_depend_on_the_batch(evaluate, tiny_checkpoint, entry):
    tasks = ["tiny_generate", "tiny_choice"]
    options = {
        "pretrained": tiny_checkpoint("llama"),
        **with_clip(FEWER_TOKENS[entry.method], tiny_checkpoint("llama")),
    }
    alone, *others = [evaluate(entry.model_id, tasks, batch_size=size, **options) for size in (1, 3, "auto")]
    for results in others:
        assert answers(results, "tiny_generate") == answers(alone, "tiny_generate")
        assert losses(results) == pytest.approx(losses(alone), abs=1e-4)
        assert counts(results) == pytest.approx(counts(alone))


@pytest.mark.parametrize("pool", [1, 8])
def test_each_image_is_loaded_once(evaluate, tiny_checkpoint, monkeypatch, pool):
    loaded = []
    original = GenerativeTokenDrop.prompt

    def prompt(self, question):
        loaded.append(question.doc_id)
        return original(self, question)

    path = tiny_checkpoint("llama")
    expected = answers(evaluate("llava_next_full", "tiny_generate", pretrained=path), "tiny_generate")
    monkeypatch.setattr(GenerativeTokenDrop, "prompt", prompt)
    monkeypatch.setattr("lmms_tokendrop.evaluation.adapter.POOL_BATCHES", pool)
    results = evaluate("llava_next_full", "tiny_generate", pretrained=path, batch_size=2)
    assert loaded == list(range(7))
    assert answers(results, "tiny_generate") == expected


@pytest.mark.parametrize("entry", some_fast(variants(architecture="llava"), 3), ids=lambda entry: entry.model_id)
def test_llava_answers_in_batches_as_it_does_alone(evaluate, tiny_llava_checkpoint, documents, entry):
    options = {"pretrained": tiny_llava_checkpoint, **with_clip(FEWER_TOKENS[entry.method], tiny_llava_checkpoint)}
    alone, batched = (evaluate(entry.model_id, "tiny_generate", batch_size=size, **options) for size in (1, 3))
    assert answers(batched, "tiny_generate") == answers(alone, "tiny_generate")
    full = 36 * sum(len(document["images"]) for document in documents) / len(documents)
    cost, share = counts(alone), SHARES.get(entry.method, 0.4)
    assert cost["full_visual_tokens"] == pytest.approx(full)
    assert cost["visual_tokens"] == pytest.approx(share * full, abs=1)


@pytest.mark.parametrize("entry", some_fast(LLAVA_VARIANTS, 3), ids=lambda entry: entry.model_id)
def test_costs_reach_the_results(evaluate, tiny_checkpoint, entry):
    given = with_clip(FEWER_TOKENS[entry.method], tiny_checkpoint("llama"))
    options = {name: value for name, value in given.items() if name != "keep_ratio"}
    if "keep_ratio" in FEWER_TOKENS[entry.method]:
        options["visual_tokens"] = 50
    results = evaluate(entry.model_id, "tiny_generate", pretrained=tiny_checkpoint("llama"), batch_size=4, **options)
    cost = results["throughput"]
    counts = issubclass(reductions("llava_next").options_of(entry.method), BudgetOptions)
    if entry.method == "area_pooling" or (entry.method != "none" and not counts):
        assert 0 < cost["avg_visual_tokens"] < cost["avg_full_visual_tokens"]
    else:
        expected = options.get("visual_tokens", cost["avg_full_visual_tokens"])
        assert cost["avg_visual_tokens"] == pytest.approx(expected, abs=1)
    assert cost["avg_seconds"] * 7 == pytest.approx(cost["total_elapsed_time"])
    assert cost["avg_latency"] == pytest.approx(cost["avg_seconds"])
    samples = results["samples"]["tiny_generate"]
    inputs = [sample["token_counts"][0]["input_tokens"] for sample in samples]
    reduced_prompt = cost["avg_prompt_tokens"] - cost["avg_full_visual_tokens"] + cost["avg_visual_tokens"]
    assert sum(inputs) / len(inputs) == pytest.approx(reduced_prompt, abs=0.5)
    assert cost["total_gen_tokens"] == sum(sample["token_counts"][0]["output_tokens"] for sample in samples)
    if entry.method != "mustdrop":  # one count in all layers: keys and values of 4 layers, 4 heads, 8 channels, float32
        entries = reduced_prompt + cost["avg_output_tokens"] - 1
        assert cost["avg_kv_bytes"] == pytest.approx(entries * 4 * 2 * 4 * 8 * 4)


def test_likelihood_of_the_full_model_equals_one_stock_forward_pass(evaluate, tiny_checkpoint, documents):
    path = tiny_checkpoint("llama")
    model = LlavaNextForConditionalGeneration.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    expected, greedy = [], []
    for document in documents:
        prompt = stock_prompt(processor, document)
        images = document["images"] or None
        length = processor(text=prompt, images=images, return_tensors="pt")["input_ids"].shape[1]
        for choice in document["choices"]:
            inputs = processor(text=f"{prompt} {choice}", images=images, return_tensors="pt")
            log_probabilities = model(**inputs).logits[0, length - 1 : -1].log_softmax(-1)
            target = inputs["input_ids"][0, length:, None]
            expected.append(-log_probabilities.gather(1, target).sum().item())
            greedy.append(bool((log_probabilities.argmax(-1, keepdim=True) == target).all()))
    results = evaluate("llava_next_full", ["tiny_choice", "tiny_likelihood"], pretrained=path, batch_size=3)
    assert losses(results) == pytest.approx(expected, abs=1e-4)
    assert [flag for sample in answers(results, "tiny_choice") for _, flag in sample] == greedy
    assert losses(results, "tiny_likelihood") == pytest.approx(expected[::3], abs=1e-4)


def test_the_choice_with_the_least_loss_is_scored(evaluate, tiny_checkpoint, documents):
    results = evaluate("llava_next_full", "tiny_choice", pretrained=tiny_checkpoint("llama"))
    right = [
        min(range(3), key=lambda place, row=row: row[place][0]) == document["answer"]
        for row, document in zip(answers(results, "tiny_choice"), documents, strict=True)
    ]
    assert results["results"]["tiny_choice"]["acc,none"] == pytest.approx(sum(right) / len(right))


def test_every_round_sees_the_answer_before(evaluate, tiny_checkpoint):
    results = evaluate(
        "llava_next_mustdrop", "tiny_rounds", pretrained=tiny_checkpoint("llama"), limit=3, **FEWER_TOKENS["mustdrop"]
    )
    assert results["results"]["tiny_rounds"]["rounds,none"] == 2
    assert results["throughput"]["avg_visual_tokens"] > 0


def test_random_dropping_is_seeded_by_the_document(evaluate, tiny_checkpoint):
    options = {"pretrained": tiny_checkpoint("llama"), "keep_ratio": 0.2}
    run = [
        answers(evaluate("llava_next_random", "tiny_generate", **options, seed=seed), "tiny_generate")
        for seed in (0, 0, 1)
    ]
    assert run[0] == run[1]
    assert run[0] != run[2]


def test_a_failure_in_generate_ends_the_run(evaluate, tiny_checkpoint, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no answer from the model")

    monkeypatch.setattr(LlavaNextTokenDropForConditionalGeneration, "generate", fail)
    with pytest.raises(RuntimeError, match="no answer from the model"):
        evaluate("llava_next_full", "tiny_generate", pretrained=tiny_checkpoint("llama"))


def test_unknown_model_arguments_end_the_run(evaluate, tiny_checkpoint):
    with pytest.raises(ValueError, match=r"'keep'.*keep_ratio"):
        evaluate("llava_next_mustdrop", "tiny_generate", pretrained=tiny_checkpoint("llama"), keep=0.5)
    with pytest.raises(ValueError, match="keep_ratio=2"):
        evaluate("llava_next_mustdrop", "tiny_generate", pretrained=tiny_checkpoint("llama"), keep_ratio=2)


def test_a_reduction_that_does_not_happen_ends_the_run(evaluate, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(RandomDrop, "keep", lambda self, stage, context: Keep.of(context.valid))
    with pytest.raises(RuntimeError, match=r"layer -1 was to leave .* visual tokens of its batch"):
        evaluate("llava_next_random", "tiny_generate", pretrained=tiny_checkpoint("llama"), keep_ratio=0.5)
    monkeypatch.setattr(RandomDrop, "count", lambda self, stage, counts: None)
    with pytest.raises(RuntimeError, match=r"random was to drop visual tokens .* and dropped none"):
        evaluate("llava_next_random", "tiny_generate", pretrained=tiny_checkpoint("llama"), keep_ratio=0.5)


def test_thresholds_that_keep_everything_are_no_failure(evaluate, tiny_checkpoint):
    path = tiny_checkpoint("llama")
    options = {"merge_threshold": 1.1, "global_threshold": 0.0, "individual_threshold": 0.0, "newlines": "keep"}
    results = evaluate("llava_next_mustdrop", "tiny_generate", pretrained=path, batch_size=4, **options)
    full = evaluate("llava_next_full", "tiny_generate", pretrained=path, batch_size=4)
    assert answers(results, "tiny_generate") == answers(full, "tiny_generate")
    assert counts(results) == counts(full)


def test_stop_strings_of_the_command_line_are_a_list(evaluate, tiny_checkpoint):
    options = {"pretrained": tiny_checkpoint("llama"), "batch_size": 3}
    whole = answers(evaluate("llava_next_full", "tiny_generate", **options), "tiny_generate")
    results = evaluate("llava_next_full", "tiny_generate", gen_kwargs='until=["a","e"]', **options)
    cut = [[text[: min((text.find(stop) for stop in "ae" if stop in text), default=None)]] for [text] in whole]
    assert answers(results, "tiny_generate") == cut != whole
    with pytest.raises(ValueError, match="generation_kwargs: num_beams=0; allowed: a whole number from 1"):
        evaluate("llava_next_full", "tiny_generate", gen_kwargs="num_beams=0", **options)


def test_means_say_how_many_samples_they_are_over(evaluate, tiny_checkpoint, tmp_path):
    options = {"pretrained": tiny_checkpoint("llama"), "use_cache": tmp_path / "cache"}
    for limit, measured in ((2, 2 + 2), (5, 3 + 5)):  # the cache keeps written answers alone
        results = evaluate("llava_next_full", ["tiny_generate", "tiny_choice"], limit=limit, **options)
        assert results["n-samples"]["tiny_generate"]["effective"] == limit
        assert results["throughput"]["avg_n"] == measured
    del options["use_cache"]
    without = evaluate("llava_next_full", ["tiny_generate", "tiny_choice"], limit=5, **options)
    assert answers(results, "tiny_generate") == answers(without, "tiny_generate")
    assert losses(results) == pytest.approx(losses(without), abs=1e-4)


def test_an_option_that_is_given_twice_is_an_error():
    model = get_model("llava_next_full")
    with pytest.raises(ValueError, match="model_args: batch_size=4, and --batch_size 1; allowed: --batch_size alone"):
        model.create_from_arg_string("pretrained=x,batch_size=4", {"batch_size": "1", "device": None})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"device": "cuda:99"}, "device='cuda:99'; this machine has cpu"),
        ({"dtype": "int8"}, "dtype='int8'; allowed: auto, float32"),
        ({"batch_size": 0}, "batch_size must be a positive integer or 'auto', not 0"),
    ],
)
def test_options_that_cannot_be_end_the_run(tiny_checkpoint, option, message):
    with pytest.raises(ValueError, match=message):
        get_model("llava_next_full")(pretrained=str(tiny_checkpoint("llama")), **option)
