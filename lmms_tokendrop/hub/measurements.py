"""Results of lmms-eval that belong to an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_tokendrop.evaluation.arguments import LoadOptions, parse_model_args
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
    repo_id, tag
        This model's repository and the name of this version there.
    base, revision
        ``pretrained`` and ``revision`` of the base. A repository's result counts only if it states this commit, which
        is None for the bundled model and for a folder.
    base_folder
        The base if it is a folder; results name it by any path that leads there.
    token_reduction
        Options in the repository's configuration.
    base_reduction
        Options that hold for the base beside those that a result states.
    """

    variant: Variant
    repo_id: str
    tag: str
    base: str | None
    revision: str | None
    base_folder: Path | None
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
        saved = self._saved(load)
        if saved is None:
            return None
        if full:
            return "full"
        kind = REDUCTION_CONFIGS[entry.architecture]
        same = kind.from_dict(kind.merged(dict(saved), given)) == kind.from_dict(dict(self.token_reduction))
        return "reduced" if same else None

    def _saved(self, load: LoadOptions) -> Mapping[str, Any] | None:
        """Options in the configuration of what was loaded; None if that is another model or another version."""
        if (load.pretrained, load.revision) == (self.repo_id, self.tag):
            return self.token_reduction
        if self.base_folder is not None:
            same = Path(load.pretrained).resolve() == self.base_folder.resolve()
        else:
            same = (load.pretrained, load.revision) == (self.base, self.revision)
        return self.base_reduction if same else None


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
    device
        Where the model ran, such as ``"cuda:0"``. Results of lmms-eval name no machine.
    """

    value: float
    stderr: float | None
    samples: int
    limit: bool
    costs: Mapping[str, float]
    dataset: str
    device: str | None


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
        For each task and metric, the scores of the roles that were measured. Later files count more. Left out are runs
        with an offset, and the means that lmms-eval adds for a group of tasks.
    """
    found: Scores = {}
    for path in sorted(folder.rglob("*_results.json"), key=lambda path: path.name):
        results = json.loads(path.read_text())
        role = subject.role(results["config"]) if "config" in results else None
        if role is None or results["config"].get("offset"):
            continue
        for task in results["n-samples"]:
            for name, value in results["results"].get(task, {}).items():
                metric, _, filtered = name.partition(",")
                if filtered and "_stderr" not in metric and isinstance(value, int | float):
                    found.setdefault((task, metric), {})[role] = _score(results, task, metric, filtered)
    return found


def _score(results: dict[str, Any], task: str, metric: str, filtered: str) -> Score:
    values = results["results"][task]
    stderr = values.get(f"{metric}_stderr,{filtered}")
    dataset = results["configs"][task].get("dataset_path") or task
    costs = results.get("throughput", {}) if len(results["n-samples"]) == 1 else {}
    samples = results["n-samples"][task]
    return Score(
        value=values[f"{metric},{filtered}"],
        stderr=stderr if isinstance(stderr, int | float) else None,
        samples=samples["effective"],
        limit=samples["effective"] < samples["original"],
        costs={name.removeprefix("avg_"): value for name, value in costs.items() if name.startswith("avg_")},
        dataset=dataset if REPOSITORY.fullmatch(dataset) else task,
        device=results["config"].get("device"),
    )
