"""Of several candidates the best at each budget, on documents other than those of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmms_tokendrop.compare.plan import planned
from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.results.compared import FULL, VALIDATION, read_rows

DOCUMENTS = 500
"""The first so many of a task's `VALIDATION` on which a candidate is chosen."""


@dataclass(frozen=True)
class Choice:
    """Candidates, and what they are tried on.

    Parameters
    ----------
    setting
        Of the comparison.
    tasks, budgets, counter, seeds
        As of :func:`planned`.
    candidates
        As the methods there; each takes a budget.

    Raises
    ------
    ValueError
        As :func:`planned` raises, and for a candidate that takes no budget.
    """

    setting: Setting
    tasks: Sequence[str]
    candidates: Sequence[str]
    budgets: Sequence[str]
    counter: str
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        for run in self.trials():
            if run.label != FULL and (run.budget is None or run.calibrates):
                raise ValueError(f"candidates: {run.label!r}; allowed: methods with a count budget, compared at each")

    @property
    def trial_setting(self) -> Setting:
        """That of the trials."""
        return replace(self.setting, limit=DOCUMENTS)

    def trials(self) -> list[Run]:
        """Every candidate at every budget, on the tasks' validation."""
        tasks = [task + VALIDATION for task in self.tasks]
        return planned(self.trial_setting, tasks, self.candidates, self.budgets, self.counter, self.seeds)

    def winners(self, folder: Path) -> list[Run]:
        """The runs of the best of each task and budget, the first of equals; none where none has a result.

        Parameters
        ----------
        folder
            Of the comparison, with the trials' results.
        """
        runs = []
        for task in self.tasks:
            rows = [row for row in read_rows(folder / f"{task}{VALIDATION}") if not row.reason]
            for budget in self.budgets:
                asked = (budget, self.counter)
                found = {row.label: row.value for row in rows if (row.budget, row.counter) == asked}
                known = [label for label in self.candidates if label in found]
                if known:
                    best = max(known, key=found.__getitem__)
                    runs += planned(self.setting, [task], [best], [budget], self.counter, self.seeds)[1:]
        return runs
