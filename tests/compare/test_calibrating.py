"""The value of an option is found with which a method leaves what a budget means."""

from types import SimpleNamespace

import pytest

from lmms_tokendrop.compare import calibrating
from lmms_tokendrop.compare.calibrating import Calibration, calibrated
from lmms_tokendrop.compare.plan import planned
from lmms_tokendrop.compare.runs import Setting


@pytest.mark.parametrize(
    ("architecture", "method", "budget", "target"),
    [
        ("llava_next", "mustdrop:global_threshold=calibrated", "25%", 45.0),  # as the control counts
        ("vilt", "pumer:prune_ratio=calibrated", "25%", 48.0),  # of all tokens
        ("vilt", "pumer:prune_ratio=calibrated", "96", 96.0),
    ],
)
def test_a_run_is_calibrated_on_the_first_documents_of_another_task(architecture, method, budget, target, monkeypatch):
    asked = []

    def evaluated(setting, run, **options):
        asked.append((setting.metric, run.task, options))
        tokens = 180 * run.options["keep_ratio"] if run.variant.endswith("uniform") else 192.0
        tokens *= 1 - 0.9 * run.options.get(run.calibrates, 0.0)
        return SimpleNamespace(cost={"visual_tokens": tokens, "full_visual_tokens": 192.0})

    monkeypatch.setattr(calibrating, "evaluated", evaluated)
    setting = Setting(architecture, "pocket", None, "f1", {})
    run = planned(setting, ["scenes"], [method], [budget], "input", [0])[-1]
    found = calibrated(setting, run, {"batch_size": 8})
    assert found == Calibration(run.calibrates, found.value, found.average, target, "scenes_validation", 100)
    assert found.average == pytest.approx(192 * (1 - 0.9 * found.value))
    assert found.average == pytest.approx(target, rel=0.02)
    assert {(metric, task) for metric, task, _ in asked} == {(None, "scenes_validation")}
    assert all(options == {"limit": 100, "batch_size": 8} for *_, options in asked)
