"""The data of a training run: drawn, or stored."""

from __future__ import annotations

from lmms_tokendrop.training.data_sources import DataSource, has_splits
from lmms_tokendrop.training.dataset_rows import load_rows
from lmms_tokendrop.training.options import POCKET_SCENES, TrainingOptions
from lmms_tokendrop.training.pocket_rows import EVALUATION_ROWS, PocketRows
from lmms_tokendrop.training.rows import Rows
from lmms_tokendrop.training.tasks import TrainingTask


def training_rows(options: TrainingOptions, task: TrainingTask, processes: int) -> Rows:
    """Open the training data; of pocket scenes, exactly as many as the run needs."""
    if options.data == POCKET_SCENES:
        return pocket_rows(options.max_steps * options.batch_size * options.accumulate * processes, options.seed)
    source = DataSource("data", options.data, options.split, "train", options.data_config)
    return stored_rows(options, task, source, None)


def evaluation_rows(options: TrainingOptions, task: TrainingTask) -> Rows:
    """Open the evaluation data; of pocket scenes, some that no run trains on."""
    argument, name = ("eval_data", options.eval_data) if options.eval_data else ("data", options.data)
    if name == POCKET_SCENES:
        return pocket_rows(options.eval_limit, 0, held_out=True)
    if options.eval_data is None and not has_splits(name):
        raise ValueError(f"eval_data: {name!r} has no split for evaluation; name other data")
    source = DataSource(argument, name, options.eval_split, "validation", options.data_config)
    return stored_rows(options, task, source, options.eval_limit)


def pocket_rows(length: int | None, seed: int, held_out: bool = False) -> Rows:
    """Draw pocket scenes."""
    return PocketRows(length or EVALUATION_ROWS, seed, held_out)


def stored_rows(options: TrainingOptions, task: TrainingTask, source: DataSource, limit: int | None) -> Rows:
    """Open data that the `datasets` library reads."""
    return load_rows(
        source,
        limit=limit,
        columns=task.columns,
        image_columns=task.image_columns,
        renamed=options.columns or {},
        image_root=options.image_root,
    )
