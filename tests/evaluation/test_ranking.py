"""Scores of many texts for one image, where text and image are encoded on their own first."""

import pytest
import torch
from local_data import pictures
from tiny_meter import save_tiny_meter
from transformers import CLIPProcessor

from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine, sample_costs
from lmms_tokendrop.evaluation.prompts import Prompt
from lmms_tokendrop.evaluation.ranking import Ranker
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForImageAndTextRetrieval
from lmms_tokendrop.modeling.methods.available import reductions

TEXTS = ("a red circle", "two square in the picture", "yes", "a letter or a yellow square is there", "no blue light")
OPTIONS = {"tome": {"r": 9}, "vision_tome": {"vision_r": 5}, "pumer": {"vision_r": 5}, "smres": {"image_size": 24}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_meter(tmp_path_factory.mktemp("retrieval"), "retrieval")


def count_rows(model, monkeypatch) -> dict[str, int]:
    """Count the rows that go through each tower from now on."""
    rows = {"get_text_features": 0, "get_image_features": 0}
    for name in rows:
        encode = getattr(model, name)

        def counted(*inputs, name=name, encode=encode, **named):
            states = encode(*inputs, **named)
            rows[name] += len(states)
            return states

        monkeypatch.setattr(model, name, counted)
    return rows


@pytest.mark.parametrize("method", sorted(set(reductions("meter").reducers) - {"dynamicvit"}))
def test_each_text_and_each_image_is_encoded_once(checkpoint, method, monkeypatch):
    model = MeterTokenDropForImageAndTextRetrieval.from_pretrained(
        checkpoint, token_reduction={"method": method, **OPTIONS.get(method, {})}
    )
    engine = EncoderEngine(model, CLIPProcessor.from_pretrained(checkpoint))
    images = pictures(2)
    with torch.inference_mode():
        pairs = [[model(**engine.inputs([Prompt(text, (image,), 7)])) for text in TEXTS] for image in images]
    encoded = count_rows(model.meter, monkeypatch)
    ranker = Ranker(engine, TEXTS, Batches(2, torch.device("cpu")))
    for image, outputs in zip(images, pairs, strict=True):
        scores, cost = ranker.scores(Prompt("", (image,), 7))
        assert scores == pytest.approx([output.logits.item() for output in outputs], abs=1e-5)
        assert sample_costs([outputs[0].report], 1.0)[0].full_visual_tokens == cost.full_visual_tokens == 65
        averages = [output.report.average_visual_tokens[0] for output in outputs]
        assert cost.visual_tokens == pytest.approx(sum(averages) / len(TEXTS))
    assert len(set(scores)) == len(TEXTS)
    assert encoded == {"get_text_features": len(TEXTS), "get_image_features": len(images)}
