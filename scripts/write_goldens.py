"""Write golden data anew: `write_goldens.py [ID ...]`, by default of every id.

`tests/golden/ID.json` says which tokens tiny models of an id keep, what they answer, and their logits;
`tests/modeling/test_goldens.py` compares. Written is only what other machines and versions of torch will give too: what
stays when the weights move by 1e-5 of themselves.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers.utils.logging import disable_progress_bar

from lmms_tokendrop.catalogue import variant, variants
from lmms_tokendrop.user_errors import one_line_errors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comparison_cases import golden_jobs
from golden_data import computed, write_golden

NUDGE, NUDGES = 1e-5, 4


def check_without_ties(architecture: str, method: str, folder: Path) -> None:
    """Raise a ValueError if a decision of a golden job is a near tie."""
    for job in golden_jobs(architecture, method):
        plain = computed(job, folder)
        for seed in range(NUDGES):
            nudged = computed(job, folder, (NUDGE, seed))
            if (plain["kept"], plain["answer"]) != (nudged["kept"], nudged["answer"]):
                raise ValueError(
                    f"{job.variant}, {job.options}: a near tie, weights moved by {NUDGE:.0e} keep other tokens; "
                    "choose other options in tests/comparison_cases.py"
                )


def main(
    model_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids; default: all.")] = None,
) -> None:
    """Write golden data."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        for entry in [variant(name) for name in model_ids] if model_ids else variants():
            check_without_ties(entry.architecture, entry.method, Path(folder))
            path = write_golden(entry.model_id, entry.architecture, entry.method, Path(folder))
            typer.echo(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    typer.run(main)
