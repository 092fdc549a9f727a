"""PuMer's bundled students through lmms-eval on the bundled task."""

import pytest
from lmms_results import answers, evaluator
from local_data import TASKS

from pocket.encoder_labels import LABELS

QUESTIONS = 16


@pytest.mark.parametrize(
    ("model", "received", "left"),
    [
        # of 145, a stage prunes 10 % (rounded: 14) and merges 30 % (44) away: 87, then 52, then 31
        ("vilt_pumer", 3 * [145] + 3 * [87] + 3 * [52] + 3 * [31], 2 * [145] + 3 * [87] + 3 * [52] + 4 * [31]),
        # 20 % (29) and 20 % (29): 87, then 53, then 31, then 19
        ("meter_pumer", [145, 87, 53, 31, 19, 19], [87, 53, 31, 19, 19, 19]),
    ],
)
def test_students_answer_with_the_tokens_of_the_papers_ratios(model, received, left):
    results = evaluator(TASKS)(model, "pocket_scenes", pretrained="pocket", batch_size=QUESTIONS, limit=QUESTIONS)
    cost = results["throughput"]
    assert cost["avg_full_visual_tokens"] == 145
    assert cost["avg_visual_tokens"] == pytest.approx(sum(received) / len(received))
    assert cost["avg_visual_tokens_release"] == pytest.approx(sum(left) / len(left))
    assert results["results"]["pocket_scenes"]["accuracy,none"] > 0.6
    given = [answer for [answer] in answers(results, "pocket_scenes")]
    assert len(given) == QUESTIONS
    assert set(given) <= set(LABELS)
