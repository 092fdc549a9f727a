"""The first group of each model of scripts/check_random_inputs.py."""

import check_random_inputs
import pytest
from PIL import Image

from lmms_tokendrop.catalogue import RETRIEVAL
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine
from lmms_tokendrop.evaluation.heads import CANDIDATES


def group_of(model_id: str) -> int:
    """The first group of a model."""
    return next(place for place, (name, _) in enumerate(check_random_inputs.CASES) if name == model_id)


@pytest.mark.slow
def test_random_inputs_are_answered_alike_or_refused_by_name():
    listed = [
        place for place, (name, _) in enumerate(check_random_inputs.CASES) if name in check_random_inputs.VARIANTS
    ]
    outcome = check_random_inputs.check([*listed, *map(group_of, ("llava_next_full", "vilt_random"))])
    assert outcome.faults == []
    assert outcome.counts["answered"] > 100
    assert outcome.counts["refused"] > 10


def test_what_depends_on_the_batch_or_breaks_is_a_fault(monkeypatch):
    classify = EncoderEngine.classify

    def spoiled(self, prompts):
        if len(prompts) == 1 and len(prompts[0].text) % 3 == 0:
            raise TypeError("a fault of the package")
        return classify(self, prompts[:1]) * len(prompts)

    monkeypatch.setattr(EncoderEngine, "classify", spoiled)
    faults = check_random_inputs.check([group_of("vilt_full")]).faults
    assert any("TypeError: a fault of the package" in fault for fault in faults)
    assert any("together: document" in fault for fault in faults)


def test_a_ranking_is_counted_as_every_answer_is(capsys):
    adapter, counts = check_random_inputs.load("vilt_full", {"head": RETRIEVAL}), []
    adapter.on_answer = lambda *numbers: counts.append(numbers)
    pictures = [{"text": text, "texts": [text], "visuals": Image.new("RGB", (96, 96))} for text in ("red", "blue ?")]
    adapter.task_dict[check_random_inputs.TASK] = {"test": check_random_inputs.Documents(pictures)}
    capsys.readouterr()
    assert [len(scores) for scores in check_random_inputs.ask(adapter, range(2), {CANDIDATES: "texts"})] == [2, 2]
    assert counts == [(1, 2), (2, 2)]
    assert capsys.readouterr().err == ""
