"""Results of lmms-eval that belong to an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.evaluation.manifests import Variant
from lmms_tokendrop.modeling.base_weights import REPOSITORY
from lmms_tokendrop.modeling.token_reducer import REDUCTION_CONFIGS


@dataclass(frozen=True)
class Subject:
    """What a result must have been measured on to be this model's.

    Parameters
    ----------
    variant
        The exported variant.
    base, repo_id
        What ``pretrained`` may be.
    revision
        Commit of the base, where a result states one.
    token_reduction
        Options in the repository's configuration.
    base_reduction
        Options that hold for the base beside those that a result states.
    """

    variant: Variant
    base: str
    repo_id: str
    revision: str | None
    token_reduction: Mapping[str, Any]
    base_reduction: Mapping[str, Any]

    def role(self, config: Mapping[str, Any]) -> str | None:
        """``"reduced"``, ``"full"`` (the unreduced model), or None for another model or other options.

        Parameters
        ----------
        config
            ``config`` of a results file.
        """
        from lmms_eval.utils import simple_parse_args_string

        entry = self.variant
        args = config.get("model_args") or ""
        options = simple_parse_args_string(args) if isinstance(args, str) else dict(args)
        if config["model"] not in (entry.model_id, f"{entry.architecture}_full"):
            return None
        full = config["model"] != entry.model_id
        method = "none" if full else entry.method
        load, given = parse_model_args(
            options, method=method, pretrained=entry.pretrained, architecture=entry.architecture
        )
        if load.pretrained == self.repo_id:
            saved = self.token_reduction
        elif self.base in (load.pretrained, Path(load.pretrained).name) and load.revision in (None, self.revision):
            saved = self.base_reduction
        else:
            return None
        if full:
            return "full"
        kind = REDUCTION_CONFIGS[entry.architecture]
        same = kind.from_dict(kind.merged(dict(saved), given)) == kind.from_dict(dict(self.token_reduction))
        return "reduced" if same else None


@dataclass(frozen=True)
class Score:
    """One metric of one task.

    Parameters
    ----------
    value, stderr
        The metric and its standard error; None where lmms-eval gives none.
    samples
        Number of questions.
    limit
        Whether the run was limited to the first questions.
    costs
        Means of the run per question; empty if it had several tasks, which lmms-eval does not tell apart.
    dataset
        Repository of the data set, or the task's name.
    """

    value: float
    stderr: float | None
    samples: int
    limit: bool
    costs: Mapping[str, float]
    dataset: str


Scores = dict[tuple[str, str], dict[str, Score]]


def read_scores(folder: Path, subject: Subject) -> Scores:
    """Read every results file of lmms-eval in a folder and what's below it.

    Parameters
    ----------
    folder
        ``--output_path`` of lmms-eval.
    subject
        The model.

    Returns
    -------
    dict
        For each task and metric, the scores of the roles that were measured. Later files count more.
    """
    found: Scores = {}
    for path in sorted(folder.rglob("*_results.json"), key=lambda path: path.name):
        results = json.loads(path.read_text())
        role = subject.role(results["config"]) if "config" in results else None
        if role is None:
            continue
        for task, values in results["results"].items():
            for name, value in values.items():
                metric, _, filtered = name.partition(",")
                if filtered and "_stderr" not in metric and isinstance(value, int | float):
                    found.setdefault((task, metric), {})[role] = _score(results, task, metric, filtered)
    return found


def _score(results: dict[str, Any], task: str, metric: str, filtered: str) -> Score:
    values = results["results"][task]
    stderr = values.get(f"{metric}_stderr,{filtered}")
    dataset = results["configs"][task].get("dataset_path") or task
    costs = results.get("throughput", {}) if len(results["results"]) == 1 else {}
    return Score(
        value=values[f"{metric},{filtered}"],
        stderr=stderr if isinstance(stderr, int | float) else None,
        samples=results["n-samples"][task]["effective"],
        limit=results["config"].get("limit") is not None,
        costs={name.removeprefix("avg_"): value for name, value in costs.items() if name.startswith("avg_")},
        dataset=dataset if REPOSITORY.fullmatch(dataset) else task,
    )
