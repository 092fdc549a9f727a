"""The parts of a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

import lmms_tokendrop
from lmms_tokendrop.benchmark.markdown import NOT_MEASURED, markdown_table
from lmms_tokendrop.benchmark.report import TABLES
from lmms_tokendrop.evaluation.manifests import Variant
from lmms_tokendrop.hub.architectures import Head
from lmms_tokendrop.hub.manifest import Manifest
from lmms_tokendrop.hub.measurements import Score, Scores, Subject
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.texts import BASE_LIMIT, COMMON_LIMIT, LIMITS, POCKET_LIMIT
from lmms_tokendrop.modeling.token_reducer import REDUCTION_CONFIGS

AT_EXPORT = "resolved at export"
SCORE_COLUMNS = (
    "task",
    "metric",
    "questions",
    "unreduced",
    "this model",
    "difference",
    "visual tokens",
    "KV cache, kB",
)


@dataclass(frozen=True)
class Facts:
    """What a card says that was not measured.

    Parameters
    ----------
    repo_id
        Repository of the card.
    variant
        The variant.
    head
        Its head.
    token_reduction
        Options in the configuration.
    manifest
        The record of the export; None for a card of a variant that was not exported.
    picture
        Whether a picture of kept tokens lies beside the card.
    pocket
        Whether the unreduced model is the bundled one.
    base_reduction
        Options that the unreduced model's configuration holds for the method.
    tag
        Name of this version in the repository; None for `push`'s default.
    """

    repo_id: str
    variant: Variant
    head: Head
    token_reduction: Mapping[str, Any]
    base_reduction: Mapping[str, Any]
    manifest: Manifest | None = None
    picture: bool = False
    pocket: bool = False
    tag: str | None = None

    @property
    def version(self) -> str:
        """Version of the package whose code goes with the model."""
        return lmms_tokendrop.__version__ if self.manifest is None else self.manifest.package_version

    @property
    def subject(self) -> Subject:
        """What results must have been measured on."""
        base = "pocket" if self.pocket else self.variant.pretrained
        revision = None
        if self.manifest is not None:
            base, revision = self.manifest.base_model, self.manifest.base_revision
        return Subject(self.variant, base, self.repo_id, revision, self.token_reduction, self.base_reduction)


def score_table(scores: Scores, tasks: Sequence[str]) -> str:
    """Accuracy and cost beside the unreduced model's, with a row for each of `tasks`, measured or not."""
    rows = []
    for task in sorted({*tasks, *(task for task, _ in scores)}):
        measured = {metric: roles for (name, metric), roles in scores.items() if name == task}
        for metric, roles in measured.items() or [("", {})]:
            rows.append((f"`{task}`", metric, *_cells(roles.get("full"), roles.get("reduced"))))
    return markdown_table(SCORE_COLUMNS, rows) if rows else NOT_MEASURED


def _cells(full: Score | None, reduced: Score | None) -> tuple[str, ...]:
    difference = NOT_MEASURED if full is None or reduced is None else f"{reduced.value - full.value:+.3f}"
    costs = {} if reduced is None else reduced.costs
    tokens = kv_bytes = NOT_MEASURED
    if "visual_tokens" in costs:
        tokens = f"{costs['visual_tokens']:.1f} of {costs['full_visual_tokens']:.1f}"
    if "kv_bytes" in costs:
        kv_bytes = f"{costs['kv_bytes'] / 1000:.0f}" if costs["kv_bytes"] else "no cache"
    return (_questions(full, reduced), _value(full), _value(reduced), difference, tokens, kv_bytes)


def _questions(*scores: Score | None) -> str:
    counts = sorted({f"{score.samples}{' (the first)' if score.limit else ''}" for score in scores if score})
    return " and ".join(counts) or NOT_MEASURED


def _value(score: Score | None) -> str:
    if score is None:
        return NOT_MEASURED
    return f"{score.value:.3f}" if score.stderr is None else f"{score.value:.3f} ± {score.stderr:.3f}"


def front_matter(facts: Facts, scores: Scores) -> ModelCardData:
    """What the Hub reads: licence, base, task, tags and results."""
    entry, manifest = facts.variant, facts.manifest
    results = [
        EvalResult(
            task_type=facts.head.pipeline_tag or "other",
            dataset_type=roles["reduced"].dataset,
            dataset_name=task,
            metric_type=metric,
            metric_value=roles["reduced"].value,
        )
        for (task, metric), roles in sorted(scores.items())
        if "reduced" in roles
    ]
    on_hub = not facts.pocket and (manifest is None or manifest.base_revision is not None)
    base = entry.pretrained if manifest is None else manifest.base_model
    return ModelCardData(
        license=None if manifest is None else manifest.license or "unknown",
        base_model=base if on_hub else None,
        library_name="transformers",
        pipeline_tag=facts.head.pipeline_tag,
        tags=["token-reduction", entry.method, f"{entry.architecture}_tokendrop", "custom_code", "lmms-eval"],
        model_name=facts.repo_id.split("/")[-1],
        eval_results=results or None,
    )


def weights(facts: Facts) -> str:
    """Where the weights are."""
    if facts.manifest is None:
        return "This card was rendered before any export."
    if facts.manifest.form == "full":
        return "The weights are in this repository."
    return "This repository has no weights: loading fetches those of the unreduced model, at the revision below."


def base(facts: Facts) -> str:
    """The unreduced model."""
    if facts.pocket:
        return "the small one that lmms_tokendrop bundles"
    if facts.manifest is None:
        return f"`{facts.variant.pretrained}`"
    return f"`{facts.manifest.base_model}`{'' if facts.manifest.base_revision else ', a local folder'}"


def revision(facts: Facts) -> str:
    """Revision of the unreduced model."""
    if facts.pocket:
        return f"that of lmms_tokendrop {facts.version}"
    if facts.manifest is None:
        return AT_EXPORT
    return f"`{facts.manifest.base_revision}`" if facts.manifest.base_revision else "none: a local folder"


def options(architecture_name: str, token_reduction: Mapping[str, Any]) -> str:
    """A table of the options that are set."""
    kind = REDUCTION_CONFIGS[architecture_name]
    options = kind.from_dict(dict(token_reduction))
    read = {"method", *kind.reducers[options.method].options} - {"preset"}
    rows = [
        (f"`{entry.name}`", f"`{json.dumps(getattr(options, entry.name))}`", entry.metadata["help"])
        for entry in fields(kind)
        if entry.name in read and getattr(options, entry.name) is not None
    ]
    return markdown_table(("option", "value", "meaning"), rows)


def stages(manifest: Manifest | None) -> str:
    """Where tokens leave."""
    if manifest is None:
        return f"Layers: {AT_EXPORT}, for the depth of the model."
    if not manifest.stages:
        return "The images are made smaller before the first layer; no token leaves later."
    return "Tokens leave at (layers are counted from 0):\n\n" + "\n".join(f"- {stage}" for stage in manifest.stages)


def example(manifest: Manifest | None) -> str:
    """What the layers received in the self-check."""
    if manifest is None or manifest.example_tokens is None:
        return f"Image tokens that each layer received of an example: {NOT_MEASURED}."
    tokens = manifest.example_tokens
    shown = [
        f"{', '.join(map(str, layers))} of {full} image tokens"
        for layers, full in zip(tokens["layers"], tokens["full"], strict=True)
    ]
    return f"Of the self-check's example, a generated scene and a question, the layers received {'; '.join(shown)}."


def picture(facts: Facts) -> str:
    """The picture of kept tokens, or when it is made."""
    if facts.picture:
        return f"![Image tokens of the example that each stage left]({PICTURE})"
    return f"Picture of kept tokens: {AT_EXPORT}."


def table(name: str, results: Path | None) -> str:
    """A table of `lmms_tokendrop.benchmark.report`."""
    return NOT_MEASURED if results is None else TABLES[name](results)


def limits(facts: Facts) -> str:
    """What to know before using the model."""
    lines = [LIMITS[facts.variant.architecture]]
    if facts.manifest is not None and facts.manifest.form == "config":
        lines.append(BASE_LIMIT)
    if facts.pocket:
        lines.append(POCKET_LIMIT)
    return "\n".join([*lines, COMMON_LIMIT])
