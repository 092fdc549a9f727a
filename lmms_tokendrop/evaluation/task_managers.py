"""Find lmms-eval tasks by name: those of a folder, and lmms-eval's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmms_eval.tasks import TaskManager

from lmms_tokendrop.evaluation.tasks_path import tasks_path


def task_manager(tasks: Sequence[str], include_path: Path | None = None) -> TaskManager:
    """Return what lmms-eval finds tasks with.

    Parameters
    ----------
    tasks
        Names of tasks.
    include_path
        A folder of task files; None for the bundled ones. Where it has all the names, lmms-eval's own tasks, whose
        files take a while to read, are left out.

    Raises
    ------
    ValueError
        If there is no such folder or task, or if the name is that of a group of tasks.
    """
    folder = tasks_path() if include_path is None else include_path
    if not folder.is_dir():
        raise ValueError(f"include_path={str(folder)!r}; allowed: a folder")
    manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False)
    there = manager.all_tasks
    if not set(tasks) <= set(there):
        manager = TaskManager("ERROR", include_path=str(folder))
    for task in tasks:
        if task not in manager.all_tasks:
            raise ValueError(
                f"task={task!r}; allowed: {', '.join(there) or 'none'} in {folder}, and lmms-eval's own, which "
                "'lmms-eval tasks list' names"
            )
        kind = manager.task_index[task]["type"]
        if kind not in ("task", "python_task"):
            raise ValueError(f"task={task!r} is a {kind} of tasks; allowed: one task")
    return manager
