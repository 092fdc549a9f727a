"""The parts of a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

import lmms_tokendrop
from lmms_tokendrop import catalogue
from lmms_tokendrop.catalogue import Head, Variant
from lmms_tokendrop.hub.base import POCKET_LICENSE
from lmms_tokendrop.hub.folder import MANIFEST
from lmms_tokendrop.hub.manifest import Manifest
from lmms_tokendrop.hub.measurements import Scores, Subject
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.texts import BASE_LIMIT, COMMON_LIMIT, OWN_METHOD, POCKET_LIMIT, UNTUNED_LIMIT
from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, number
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.results.tables import RESULTS_TABLES

AT_EXPORT = "resolved at export"
LICENSE_NAME = "that-of-the-base-model"
"""What the Hub asks for beside the licence `other`."""


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
    base_reduction
        Options that the base's configuration holds for the method.
    tuned
        Whether the base was trained with the method, as far as its configuration says.
    manifest
        The record of the export; None for a card of a variant that was not exported.
    base_folder
        The base if it is a folder and results of it count.
    picture
        Whether a picture of kept tokens lies beside the card.
    pocket
        Whether the base is bundled.
    tag
        Name of this version in the repository; None for `push`'s default.
    """

    repo_id: str
    variant: Variant
    head: Head
    token_reduction: Mapping[str, Any]
    base_reduction: Mapping[str, Any]
    tuned: bool = False
    manifest: Manifest | None = None
    base_folder: Path | None = None
    picture: bool = False
    pocket: bool = False
    tag: str | None = None

    @property
    def version(self) -> str:
        """Version of the package whose code goes with the model."""
        return lmms_tokendrop.__version__ if self.manifest is None else self.manifest.package_version

    @property
    def pin(self) -> str:
        """Name of this version in the repository."""
        return self.tag or f"v{self.version}"

    @property
    def base_repository(self) -> str | None:
        """The base's repository; None if it is bundled or a folder."""
        if self.pocket:
            return None
        if self.manifest is None:
            return self.variant.pretrained
        return self.manifest.base_model if self.manifest.base_revision else None

    @property
    def license(self) -> str | None:
        """Licence of the weights; None if it will be known at export."""
        if self.pocket:
            return POCKET_LICENSE
        return None if self.manifest is None else self.manifest.license or "unknown"

    @property
    def subject(self) -> Subject:
        """What results must have been measured on."""
        return Subject(
            variant=self.variant,
            repo_id=self.repo_id,
            tag=self.pin,
            base="pocket" if self.pocket else self.base_repository,
            revision=None if self.manifest is None else self.manifest.base_revision,
            base_folder=self.base_folder,
            token_reduction=self.token_reduction,
            base_reduction=self.base_reduction,
        )


def front_matter(facts: Facts, scores: Scores) -> ModelCardData:
    """What the Hub reads: licence, base, task, tags and results; those of a part of a task are no results of it."""
    entry = facts.variant
    results = [
        EvalResult(
            task_type=facts.head.pipeline_tag or "other",
            dataset_type=roles["reduced"].dataset,
            dataset_name=task,
            metric_type=metric,
            metric_value=roles["reduced"].value,
        )
        for (task, metric), roles in sorted(scores.items())
        if "reduced" in roles and not roles["reduced"].limit
    ]
    return ModelCardData(
        license=facts.license,
        license_name=LICENSE_NAME if facts.license == "other" else None,
        base_model=facts.base_repository,
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
    return "This repository has no weights: loading fetches those of the base model, at the revision below."


def base(facts: Facts) -> str:
    """The model that the variant is made of."""
    if facts.pocket:
        trained = "fine-tuned with this method" if facts.tuned else "trained without a reduction"
        return f"`{facts.variant.pocket}`, bundled with lmms_tokendrop, {trained}"
    if facts.base_repository is not None:
        return code(facts.base_repository)
    return AT_EXPORT if facts.manifest is None else f"{code(facts.manifest.base_model)}, a local folder"


def revision(facts: Facts) -> str:
    """Revision of the base."""
    if facts.pocket:
        return f"that of lmms_tokendrop {escaped(facts.version)}"
    if facts.manifest is None:
        return AT_EXPORT
    return code(facts.manifest.base_revision) if facts.manifest.base_revision else "none: a local folder"


def options(architecture_name: str, token_reduction: Mapping[str, Any]) -> str:
    """A table of the options that are set."""
    kind = reductions(architecture_name)
    options = kind.from_dict(dict(token_reduction))
    rows = [
        (code(entry.name), code(json.dumps(getattr(options, entry.name))), entry.metadata["help"])
        for entry in fields(options)
        if entry.name != "preset" and getattr(options, entry.name) is not None
    ]
    rows += [
        (code(name), code(json.dumps(value)), kind.entry(options.method, name).metadata["help"])
        for name, value in options.to_dict().items()
        if "." in name
    ]
    return markdown_table(("option", "value", "meaning"), rows)


def stages(manifest: Manifest | None) -> str:
    """Where tokens leave."""
    if manifest is None:
        return f"Layers: {AT_EXPORT}, for the depth of the model."
    if not manifest.stages:
        return "The images are made smaller before the first layer; no token leaves later."
    lines = "\n".join(f"- {escaped(stage)}" for stage in manifest.stages)
    return f"Tokens leave at (layers are counted from 0):\n\n{lines}"


def example(manifest: Manifest | None) -> str:
    """What the layers received in the self-check."""
    if manifest is None or manifest.example_tokens is None:
        return f"Image tokens that each layer received of an example: {NOT_MEASURED}."
    tokens = manifest.example_tokens
    try:
        shown = [
            f"{', '.join(number(layer, 'd') for layer in layers)} of {number(full, 'd')} image tokens"
            for layers, full in zip(tokens["layers"], tokens["full"], strict=True)
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST}: example_tokens={tokens!r} is broken; export again") from error
    return f"Of the self-check's example, a generated scene and a question, the layers received {'; '.join(shown)}."


def picture(facts: Facts) -> str:
    """The picture of kept tokens, or when it is made."""
    if facts.picture:
        return f"![Image tokens of the example that each stage left]({PICTURE})"
    return f"Picture of kept tokens: {AT_EXPORT}."


def table(name: str | None, results: Path | None) -> str:
    """A table of `lmms_tokendrop.results.tables`; None: there is none for this model."""
    return NOT_MEASURED if name is None or results is None else RESULTS_TABLES[name](results)


def limits(facts: Facts) -> str:
    """What to know before using the model."""
    lines = [catalogue.architecture(facts.variant.architecture).limits]
    if not facts.tuned and facts.variant.method != "none":
        lines.append(UNTUNED_LIMIT)
    if facts.manifest is not None and facts.manifest.form == "config":
        lines.append(BASE_LIMIT)
    if facts.pocket:
        lines.append(POCKET_LIMIT)
    return "\n".join([*lines, COMMON_LIMIT])


def citation(method: str) -> str:
    """How to cite a method, or that there is no paper."""
    paper = catalogue.method(method).paper
    return OWN_METHOD if paper is None else paper.bibtex
