"""Model cards, made of a folder's record and of results files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from lmms_tokendrop.catalogue import POCKET, architecture, variant, variants
from lmms_tokendrop.hub import card_sections as sections
from lmms_tokendrop.hub.base import saved_reduction, tuned_with
from lmms_tokendrop.hub.card_check import TEMPLATE, check_card
from lmms_tokendrop.hub.card_scores import score_table
from lmms_tokendrop.hub.card_sections import AT_EXPORT, Facts
from lmms_tokendrop.hub.card_stamp import stamp
from lmms_tokendrop.hub.manifest import Manifest, read_config
from lmms_tokendrop.hub.measurements import Measured, Scores, read_scores
from lmms_tokendrop.hub.names import check_repository, check_tag
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.shipped import shipped
from lmms_tokendrop.markdown import escaped
from lmms_tokendrop.modeling.core.tested_transformers import TESTED
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.registry import pocket_path

OWN_TASKS = ("pocket_", "tokendrop_")
"""How names of the tasks begin that come with the package."""


def folder_card(
    folder: Path, repo_id: str, results: Path | None = None, *, tag: str | None = None, base: Path | None = None
) -> tuple[ModelCard, dict[Path, str]]:
    """The card of an exported folder.

    Parameters
    ----------
    folder
        Made by `lmms_tokendrop.hub.export`.
    repo_id
        Repository that it will be pushed to.
    results
        Folder with results of lmms-eval (at any depth) and of the benchmarks. What it lacks is "not measured".
    tag
        Name of this version, for the commands and in results; default: ``v`` and the package's version.
    base
        The base if it is a folder; without it results of the base do not count.

    Returns
    -------
    tuple of ModelCard and dict
        The card, and why results files that are left out do not count.

    Raises
    ------
    ValueError
        If the folder has no record, if anything in it or in `results` is a link, if a name or a results file is wrong,
        or if `base` is another folder than the one that was exported.
    """
    manifest, config = Manifest.read(folder), read_config(folder)
    check_repository(repo_id)
    tag = check_tag(f"v{manifest.package_version}" if tag is None else tag)
    from_folder = not manifest.bundled and manifest.base_revision is None
    if base is not None and not (from_folder and base.resolve().name == manifest.base_model):
        exported = f"the folder {manifest.base_model!r}" if from_folder else "none; the base is no folder"
        raise ValueError(f"base={str(base)!r}; allowed: {exported}")
    entry = variant(manifest.variant)
    kind = reductions(entry.architecture)
    facts = Facts(
        repo_id=repo_id,
        variant=entry,
        head=architecture(entry.architecture).head(config.get("architectures")),
        token_reduction=kind.restored(config.get("token_reduction")),
        base_reduction=kind.restored(manifest.base_reduction),
        tuned=manifest.tuned,
        manifest=manifest,
        base_folder=base,
        picture=(folder / PICTURE).exists(),
        pocket=manifest.bundled,
        tag=tag,
    )
    measured = Measured() if results is None else read_scores(results, facts.subject)
    return render(facts, measured.scores, results, stamp(folder, repo_id, tag)), measured.left_out


def variant_card(variant_id: str, results: Path | None = None, *, pocket: bool = False) -> ModelCard:
    """The card of a variant with its default checkpoint (or the bundled one), before any export.

    What its method must be given has the value of the example.
    """
    entry = variant(variant_id)
    pocket = pocket or entry.pretrained == POCKET
    head = architecture(entry.architecture).heads[0]
    name = f"you/{'pocket-' if pocket else ''}{entry.model_id.replace('_', '-')}"
    config = read_config(pocket_path(entry.architecture, entry.method)) if pocket else {}
    required = reductions(entry.architecture).options_of(entry.method).required
    reduction = {**required, **saved_reduction(config, entry.architecture, entry.method)}
    tuned = tuned_with(config, entry.method)
    facts = Facts(name, entry, head, reduction, reduction, tuned=tuned, pocket=pocket)
    return render(facts, {} if results is None else read_scores(results, facts.subject).scores, results)


def render(facts: Facts, scores: Scores, results: Path | None, comment: str = "") -> ModelCard:
    """Fill the template `model_cards/variant.md.jinja`.

    Parameters
    ----------
    facts
        What was not measured.
    scores
        What lmms-eval measured.
    results
        Folder of the benchmarks' results, or None.
    comment
        What the card ends with.

    Returns
    -------
    ModelCard
        The card, checked.
    """
    entry, manifest = facts.variant, facts.manifest
    kind = architecture(entry.architecture)
    auto_class = facts.head.auto_class or "AutoModel"
    tasks = ("pocket_scenes",) if facts.pocket else facts.head.tasks
    card = ModelCard.from_template(
        sections.front_matter(facts, scores),
        template_path=str(shipped(TEMPLATE)),
        title=facts.repo_id.split("/")[-1],
        description=entry.description,
        weights=sections.weights(facts),
        base=sections.base(facts),
        revision=sections.revision(facts),
        license=escaped(facts.license or AT_EXPORT),
        version=escaped(facts.version),
        options=sections.options(entry.architecture, facts.token_reduction),
        stages=sections.stages(manifest),
        example=sections.example(manifest),
        picture=sections.picture(facts),
        auto_class=auto_class,
        model_class=kind.model_class(facts.head),
        pin=facts.pin,
        repo_id=facts.repo_id,
        variant=entry.model_id,
        tasks=",".join(tasks),
        own_tasks=any(task.startswith(OWN_TASKS) for task in tasks),
        scores=score_table(scores, () if facts.pocket else facts.head.tasks),
        tables={name: sections.table(name, results) for name in kind.pocket_tables} if facts.pocket else {},
        benchmark=sections.table(kind.benchmarks.get(entry.method), results),
        limits=sections.limits(facts),
        transformers=f"transformers>={TESTED[0]},<{TESTED[1]}",
        citation=sections.citation(entry.method),
        comment=comment,
    )
    check_card(card, comment)
    return card


def standing_cards(results: Path) -> dict[str, ModelCard]:
    """The cards in `model_cards`, by file name: of reduced variants and of bundled models.

    The variants are those with a checkpoint on the Hub; for a bundled model it is the first that runs on it.
    """
    reduced = [entry for entry in variants() if entry.method != "none"]
    public = [entry.model_id for entry in reduced if entry.pretrained not in (None, POCKET)]
    bundled: dict[str, str] = {}
    for entry in reduced:
        if entry.pocket is not None:
            bundled.setdefault(entry.pocket, entry.model_id)
    return {
        **{f"{name}.md": variant_card(name, results) for name in public},
        **{f"pocket_{name}.md": variant_card(name, results, pocket=True) for name in bundled.values()},
    }
