"""What counts as a difference of two commits, and what is allowed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import collect_outcomes
import pytest
import torch
from compare_commits import compare, differences, explained, logit_difference, table, worktree


def record(kept: int = 0, logits: float | None = 0.0, shape: tuple[int, ...] = (2, 3)) -> dict:
    values = None if logits is None else torch.full(shape, logits)
    return {"exact": {"kept": [kept], "kv_bytes": 64}, "logits": values}


@pytest.mark.parametrize(
    ("name", "by", "found"),
    [
        ("llava_next_random, llama, defaults, one", 5e-7, ["logits by 5.0e-07"]),
        ("meter_full, retrieval, defaults, one", 5e-7, ["logits by 5.0e-07"]),
        ("vilt_pumer, pocket, defaults", 5e-7, []),
        ("vilt_pumer, pocket, defaults", 2e-6, ["logits by 2.0e-06"]),
        ("vilt_pumer, pocket, defaults", math.nan, ["logits by inf"]),
    ],
)
def test_logits_are_equal_bit_by_bit_or_almost(name, by, found):
    differing = compare(name, [record(), record()], [record(), record(logits=by)])
    assert [(number, entry.what) for number, entry in differing] == [(1, what) for what in found]


def test_what_is_kept_is_equal_and_each_call_is_there():
    [(number, entry)] = compare("vilt_tome, pocket, r=9", [record(1)], [record(2)])
    assert (number, entry.what, entry.cause) == (0, "kept", None)
    [(_, entry)] = compare("vilt_tome, pocket, r=9", [record()], [record(), record()])
    assert entry.what == "1 and 2 calls"


def test_logits_of_another_shape_or_on_one_side_alone_differ():
    assert logit_difference(record(), record(shape=(1, 3))) == math.inf
    assert logit_difference(record(logits=None), record()) == math.inf
    assert logit_difference(record(logits=None), record(logits=None)) == 0


def test_only_what_old_gives_too_when_nudged_is_a_near_tie():
    [(_, flip)] = compare("vilt_tome, pocket, r=9", [record(1)], [record(2)])
    assert "near tie" in explained(flip, record(2), [record(1), record(2)]).cause
    assert explained(flip, record(2), [record(1), record(3)]).cause is None
    [(_, logits)] = compare("vilt_tome, pocket, r=9", [record()], [record(logits=1.0)])
    assert explained(logits, record(logits=1.0), [record(logits=1.0)]).cause is None


def test_what_runs_in_either_tree_reads_public_names_alone(tmp_path):
    package = tmp_path / "lmms_tokendrop"
    package.mkdir()
    (package / "__init__.py").touch()
    scripts, tests = Path(collect_outcomes.__file__).parent, Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, tests, scripts)))}
    subprocess.run([sys.executable, "-c", "import collect_outcomes"], cwd=tmp_path, env=environment, check=True)


def outcomes(monkeypatch, old: dict, new: dict, nudged: dict):
    """Compare what three runs give, in place of runs."""
    runs = {"old": old, "new": new}
    monkeypatch.setattr(
        "compare_commits.collected", lambda tree, folder, jobs, nudge=None: nudged if nudge else runs[tree]
    )
    jobs = [{"name": name} for name in old["records"]]
    return differences(("old", "new"), None, jobs)


def rows(found) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in table(*found).columns), strict=True))


def test_ids_of_one_side_are_missing_or_new(monkeypatch):
    equal = {"vilt_tome, pocket, r=9": [record()]}
    old = {"ids": ["vilt_tome", "vilt_gone"], "records": equal}
    new = {"ids": ["vilt_tome", "vilt_more"], "records": equal}
    found = outcomes(monkeypatch, old, new, old)
    assert [(entry.name, entry.what, entry.cause) for entry in found[-1]] == [("vilt_gone", "missing in NEW", None)]
    assert rows(found) == [
        ("vilt_tome", "pocket", "1", "1", "bitwise", "equal"),
        ("vilt_more", "", "", "", "", "new"),
    ]


def test_the_table_counts_near_ties_apart_from_differences(monkeypatch):
    flip, break_ = "vilt_tome, pocket, r=9", "vilt_pumer, pocket, defaults"
    ids = ["vilt_tome", "vilt_pumer"]
    old = {"ids": ids, "records": {flip: [record(1)], break_: [record(1)]}}
    new = {"ids": ids, "records": {flip: [record(2)], break_: [record(2)]}}
    nudged = {"ids": ids, "records": {flip: [record(2)], break_: [record(1)]}}
    found = outcomes(monkeypatch, old, new, nudged)
    assert [row[-1] for row in rows(found)] == ["equal, near ties: 1", "1 differ"]


def test_a_commit_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="'no-such' is no commit"), worktree("no-such", tmp_path / "old"):
        pass
