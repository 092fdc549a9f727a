"""The plot has the numbers of the results file."""

import pytest

from lmms_tokendrop.benchmark.accuracy_plot import accuracy_plot


def test_each_variant_is_a_line_through_its_rows_and_the_unreduced_model_a_level():
    rows = [
        {"model_id": "llava_next_mustdrop", "visual_tokens": 96.0, "accuracy": 0.45, "accuracy_stderr": 0.02},
        {"model_id": "llava_next_mustdrop", "visual_tokens": 48.0, "accuracy": 0.4, "accuracy_stderr": 0.03},
        {"model_id": "llava_next_random", "visual_tokens": 48.0, "accuracy": 0.2, "accuracy_stderr": 0.01},
    ]
    full = {"model_id": "llava_next_full", "samples": 10, "visual_tokens": 192.0, "accuracy": 0.5}
    figure = accuracy_plot({"scenes": [full, *rows]})
    (panel,) = figure.axes
    lines = {container.get_label(): container for container in panel.containers}
    assert lines.keys() == {"mustdrop", "random"}
    points = lines["mustdrop"].lines[0].get_xydata().tolist()
    assert points == [[48.0, pytest.approx(40)], [96.0, pytest.approx(45)]]
    (bars,) = lines["random"].lines[2]
    assert bars.get_segments()[0].tolist() == [[48.0, pytest.approx(19)], [48.0, pytest.approx(21)]]
    assert panel.lines[0].get_ydata() == pytest.approx([50, 50])
