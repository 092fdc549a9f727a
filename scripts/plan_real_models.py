"""Work out what methods leave and cost in models of public sizes, without weights: `plan_real_models.py [MODEL ...]`.

Writes `model_cards/results/planned_costs.json`; models that are not named stay as the file has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.plan.planned_costs import BUDGETS, planned_costs
from lmms_tokendrop.user_errors import check_output_file, one_line_errors

OUTPUT = Path(__file__).resolve().parents[1] / "model_cards" / "results" / "planned_costs.json"


def main(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Default: all.")] = None,
    output: Annotated[Path, typer.Option(help="JSON file.")] = OUTPUT,
) -> None:
    """Work out the figures, a model at a time."""
    torch.set_num_threads(1)
    with one_line_errors():
        check_output_file("output", output)
        for name in models or BUDGETS:
            if name not in BUDGETS:
                raise ValueError(f"models: {name!r}; allowed: {', '.join(BUDGETS)}")
        found = read_json_object(output) if output.exists() else {}
        for name in models or BUDGETS:
            found[name] = planned_costs(name)
            output.write_text(json.dumps({each: found[each] for each in BUDGETS if each in found}, indent=1) + "\n")
            typer.echo(f"{name}: {len(found[name]['rows'])} rows")


if __name__ == "__main__":
    typer.run(main)
