"""Results of lmms-eval that belong to an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lmms_tokendrop.catalogue import Variant
from lmms_tokendrop.evaluation.arguments import LoadOptions, parse_model_args
from lmms_tokendrop.hub.folder import refuse_links
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.markdown import is_finite, number
from lmms_tokendrop.modeling.core.loading import REPOSITORY
from lmms_tokendrop.modeling.methods.available import reductions

SAMPLES = "n"
"""What lmms-eval's ``throughput`` names the number of samples that a mean is over, after ``avg_``, see `CostLedger`."""


class OtherRun(ValueError):
    """A result is of another model, of another version of it, or of other options."""


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

    def role(self, config: Mapping[str, Any]) -> str:
        """``"reduced"``, or ``"full"`` for the unreduced model.

        Parameters
        ----------
        config
            ``config`` of a results file.

        Raises
        ------
        OtherRun
            If it is another model, another version or other options; the message says what differs.
        """
        from lmms_eval.utils import simple_parse_args_string

        entry = self.variant
        names = (entry.model_id, f"{entry.architecture}_full")
        if config["model"] not in names:
            raise OtherRun(f"model {config['model']!r}; counted: {' and '.join(dict.fromkeys(names))}")
        if config.get("offset"):
            raise OtherRun(f"it starts at question {config['offset']}")
        args = config.get("model_args") or ""
        options = simple_parse_args_string(args) if isinstance(args, str) else dict(args)
        full = config["model"] != entry.model_id
        method = "none" if full else entry.method
        try:
            load, given = parse_model_args(
                options, method=method, pretrained=entry.pretrained, architecture=entry.architecture
            )
        except ValueError as error:
            raise OtherRun(f"model_args: {error}") from error
        saved = self._saved(load)
        if full:
            return "full"
        kind = reductions(entry.architecture)
        found, wanted = kind.from_dict(kind.merged(dict(saved), given)), kind.from_dict(dict(self.token_reduction))
        names = [entry.name for entry in fields(found) if getattr(found, entry.name) != getattr(wanted, entry.name)]
        if names:
            stated, counted = (", ".join(f"{name}={getattr(one, name)!r}" for name in names) for one in (found, wanted))
            raise OtherRun(f"{stated}; counted: {counted}")
        return "reduced"

    def _saved(self, load: LoadOptions) -> Mapping[str, Any]:
        """Options in the configuration of what was loaded."""
        found = (load.pretrained, load.revision)
        if found == (self.repo_id, self.tag):
            return self.token_reduction
        counted = [f"pretrained={self.repo_id},revision={self.tag}"]
        if self.base_folder is not None:
            if Path(load.pretrained).resolve() == self.base_folder.resolve():
                return self.base_reduction
            counted.append(f"pretrained={self.base_folder}")
        elif self.base is not None:
            if found == (self.base, self.revision):
                return self.base_reduction
            counted.append(f"pretrained={self.base}" + (f",revision={self.revision}" if self.revision else ""))
        else:
            counted.append("the base's folder if --base names it")
        version = f",revision={load.revision}" if load.revision else " without a revision"
        raise OtherRun(f"pretrained={load.pretrained}{version}; counted: {' or '.join(counted)}")


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
        Means of the run per question; empty if they are not means over all questions of one task.
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
"""Of each task and metric, by the role of the model that was measured."""


@dataclass(frozen=True)
class Measured:
    """What a folder of results says about a model.

    Parameters
    ----------
    scores
        The scores that count.
    left_out
        Why a file, or its costs, do not count.
    """

    scores: Scores = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)


def read_scores(folder: Path, subject: Subject) -> Measured:
    """Read every results file of lmms-eval in a folder and what's below it.

    Parameters
    ----------
    folder
        ``--output_path`` of lmms-eval.
    subject
        The model.

    Returns
    -------
    Measured
        Later files count more. Means that lmms-eval adds for a group of tasks are no scores.

    Raises
    ------
    ValueError
        If a file is a link, or no results file of lmms-eval; the message names it.
    """
    refuse_links(folder)
    found = Measured()
    for path in sorted(folder.rglob("*_results.json"), key=lambda path: path.name):
        results = read_json_object(path)
        try:
            role = subject.role(results["config"])
            costs, reason = _costs(results)
            for task in results["n-samples"]:
                for metric, score in _task_scores(results, task, costs).items():
                    found.scores.setdefault((task, metric), {})[role] = score
            if reason is not None:
                found.left_out[path] = reason
        except OtherRun as error:
            found.left_out[path] = str(error)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is no results file of lmms-eval ({reason})") from error
    return found


def _task_scores(results: dict[str, Any], task: str, costs: Mapping[str, float]) -> dict[str, Score]:
    """Every metric of a task."""
    values, samples = results["results"].get(task, {}), results["n-samples"][task]
    dataset = results["configs"][task].get("dataset_path") or task
    scores = {}
    for name, value in values.items():
        metric, _, filtered = name.partition(",")
        if not filtered or "_stderr" in metric or not isinstance(value, int | float):
            continue
        stderr = values.get(f"{metric}_stderr,{filtered}")
        scores[metric] = Score(
            value=_finite(f"{task}, {metric}", value),
            stderr=_finite(f"{task}, {metric}_stderr", stderr) if isinstance(stderr, int | float) else None,
            samples=_finite(f"{task}, n-samples", samples["effective"]),
            limit=samples["effective"] < samples["original"],
            costs=costs,
            dataset=dataset if REPOSITORY.fullmatch(dataset) else task,
            device=results["config"].get("device"),
        )
    return scores


def _costs(results: dict[str, Any]) -> tuple[dict[str, float], str | None]:
    """Means of a run's costs, or none and the reason why they are not those of all questions of one task."""
    means = {
        name.removeprefix("avg_"): _finite(name, value)
        for name, value in (results.get("throughput") or {}).items()
        if name.startswith("avg_")
    }
    if not means:
        return {}, None
    if len(results["n-samples"]) > 1:
        return {}, "its costs are means over several tasks; its scores count"
    [samples] = results["n-samples"].values()
    counted, wanted = means.pop(SAMPLES, None), samples["effective"]
    if counted != wanted:
        part = "an unknown number of" if counted is None else number(counted, ".0f")
        return {}, f"its costs are means over {part} samples, not over {wanted} questions; its scores count"
    return means, None


def _finite(name: str, value: Any) -> Any:
    if not is_finite(value):
        raise ValueError(f"{name} is {value!r}; allowed: finite numbers")
    return value
