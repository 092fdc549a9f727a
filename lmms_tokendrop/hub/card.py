"""Model cards, made of a folder's record and of results files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from lmms_tokendrop.evaluation.manifests import POCKET, VARIANTS, variant
from lmms_tokendrop.hub import card_sections as sections
from lmms_tokendrop.hub.architectures import architecture
from lmms_tokendrop.hub.base import saved_reduction, tuned_with
from lmms_tokendrop.hub.card_sections import AT_EXPORT, Facts
from lmms_tokendrop.hub.manifest import Manifest, read_config
from lmms_tokendrop.hub.measurements import read_scores
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.texts import CITATIONS, OWN_METHOD
from lmms_tokendrop.pocket.registry import POCKET_MODELS, pocket_path

PACKAGE = Path(__file__).resolve().parent.parent
OWN_TASKS = ("pocket_", "tokendrop_")
"""How names of the tasks begin that come with the package."""


def folder_card(
    folder: Path, repo_id: str, results: Path | None = None, *, tag: str | None = None, base: Path | None = None
) -> ModelCard:
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
    ModelCard
        The card.

    Raises
    ------
    ValueError
        If the folder has no record, or if `base` is another folder than the one that was exported.
    """
    manifest, config = Manifest.read(folder), read_config(folder)
    from_folder = not manifest.bundled and manifest.base_revision is None
    if base is not None and not (from_folder and base.resolve().name == manifest.base_model):
        exported = f"the folder {manifest.base_model!r}" if from_folder else "none; the base is no folder"
        raise ValueError(f"base={str(base)!r}; allowed: {exported}")
    entry = variant(manifest.variant)
    facts = Facts(
        repo_id=repo_id,
        variant=entry,
        head=architecture(entry.architecture).head(config["architectures"]),
        token_reduction=config["token_reduction"],
        base_reduction=manifest.base_reduction,
        tuned=manifest.tuned,
        manifest=manifest,
        base_folder=base,
        picture=(folder / PICTURE).exists(),
        pocket=manifest.bundled,
        tag=tag,
    )
    return render(facts, results)


def variant_card(variant_id: str, results: Path | None = None, *, pocket: bool = False) -> ModelCard:
    """The card of a variant with its default checkpoint (or the bundled one), before any export."""
    entry = variant(variant_id)
    pocket = pocket or entry.pretrained == POCKET
    head = next(iter(architecture(entry.architecture).heads.values()))
    name = f"you/{'pocket-' if pocket else ''}{entry.model_id.replace('_', '-')}"
    config = read_config(pocket_path(entry.architecture, entry.method)) if pocket else {}
    reduction = saved_reduction(config, entry.method)
    tuned = tuned_with(config, entry.method)
    return render(Facts(name, entry, head, reduction, reduction, tuned=tuned, pocket=pocket), results)


def render(facts: Facts, results: Path | None) -> ModelCard:
    """Fill the template `model_cards/variant.md.jinja`.

    Parameters
    ----------
    facts
        What was not measured.
    results
        Folder of results, or None.

    Returns
    -------
    ModelCard
        The card.
    """
    entry, manifest = facts.variant, facts.manifest
    kind = architecture(entry.architecture)
    scores = {} if results is None else read_scores(results, facts.subject)
    auto_class = facts.head.auto_class or "AutoModel"
    tasks = ("pocket_scenes",) if facts.pocket else facts.head.tasks
    return ModelCard.from_template(
        sections.front_matter(facts, scores),
        template_path=str(template_path()),
        title=facts.repo_id.split("/")[-1],
        description=entry.description,
        weights=sections.weights(facts),
        base=sections.base(facts),
        revision=sections.revision(facts),
        license=facts.license or AT_EXPORT,
        version=facts.version,
        options=sections.options(entry.architecture, facts.token_reduction),
        stages=sections.stages(manifest),
        example=sections.example(manifest),
        picture=sections.picture(facts),
        auto_class=auto_class,
        model_class=facts.head.model_class,
        pin=facts.pin,
        repo_id=facts.repo_id,
        variant=entry.model_id,
        tasks=",".join(tasks),
        own_tasks=any(task.startswith(OWN_TASKS) for task in tasks),
        scores=sections.score_table(scores, () if facts.pocket else facts.head.tasks),
        tables={name: sections.table(name, results) for name in kind.pocket_tables} if facts.pocket else {},
        benchmark=sections.table(kind.benchmarks.get(entry.method), results),
        limits=sections.limits(facts),
        citation=CITATIONS.get(entry.method, OWN_METHOD),
    )


def template_path(package: Path = PACKAGE) -> Path:
    """The template: the installed one, else the source tree's."""
    installed = package / "model_cards" / "variant.md.jinja"
    return installed if installed.exists() else package.parent / "model_cards" / "variant.md.jinja"


def standing_cards(results: Path) -> dict[str, ModelCard]:
    """The cards in `model_cards`, by file name: of reduced variants and of bundled models.

    The variants are those with a checkpoint on the Hub; for a bundled model it is the first that runs on it.
    """
    reduced = [entry for entry in VARIANTS if entry.method != "none"]
    public = [entry.model_id for entry in reduced if entry.pretrained not in (None, POCKET)]
    bundled: dict[str, str] = {}
    for entry in reduced:
        model = POCKET_MODELS.get((entry.architecture, entry.method))
        if model is not None:
            bundled.setdefault(model, entry.model_id)
    return {
        **{f"{name}.md": variant_card(name, results) for name in public},
        **{f"pocket_{name}.md": variant_card(name, results, pocket=True) for name in bundled.values()},
    }
