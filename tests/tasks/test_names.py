"""Names of the bundled tasks."""

import re
from pathlib import Path

import lmms_eval.tasks
from local_data import TASKS

NAME = re.compile(r"""^(?:task|group)\s*:\s*["']?([\w.+-]+)""", re.MULTILINE)


def names(folder: Path) -> set[str]:
    return {name for path in folder.glob("**/*.yaml") for name in NAME.findall(path.read_text())}


def test_no_task_has_a_name_of_lmms_evals():
    own, others = names(TASKS), names(Path(lmms_eval.tasks.__file__).parent)
    assert own == {path.stem for path in TASKS.glob("*/*.yaml")}
    assert {"vqav2_val", "flickr30k_test"} <= others
    assert not own & others
