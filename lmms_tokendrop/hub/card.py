"""Model cards, made of a folder's record and of results files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from lmms_tokendrop.evaluation.manifests import variant
from lmms_tokendrop.hub import card_sections as sections
from lmms_tokendrop.hub.architectures import architecture
from lmms_tokendrop.hub.base import saved_reduction
from lmms_tokendrop.hub.card_sections import AT_EXPORT, Facts
from lmms_tokendrop.hub.manifest import Manifest, read_config
from lmms_tokendrop.hub.measurements import read_scores
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.texts import CITATIONS, OWN_METHOD
from lmms_tokendrop.pocket.registry import pocket_path

PACKAGE = Path(__file__).resolve().parent.parent
PUBLIC = ("llava_next_mustdrop", "vilt_pumer")
POCKET = ("llava_next_mustdrop", "vilt_pumer", "meter_pumer")


def folder_card(folder: Path, repo_id: str, results: Path | None = None, *, tag: str | None = None) -> ModelCard:
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
        Name of this version, for the commands; default: ``v`` and the package's version.

    Returns
    -------
    ModelCard
        The card.
    """
    manifest, config = Manifest.read(folder), read_config(folder)
    entry = variant(manifest.variant)
    facts = Facts(
        repo_id=repo_id,
        variant=entry,
        head=architecture(entry.architecture).head(config["architectures"]),
        token_reduction=config["token_reduction"],
        base_reduction=manifest.base_reduction,
        manifest=manifest,
        picture=(folder / PICTURE).exists(),
        pocket=manifest.base_model == "pocket",
        tag=tag,
    )
    return render(facts, results)


def variant_card(variant_id: str, results: Path | None = None, *, pocket: bool = False) -> ModelCard:
    """The card of a variant with its default checkpoint (or the bundled one), before any export."""
    entry = variant(variant_id)
    head = next(iter(architecture(entry.architecture).heads.values()))
    name = f"you/{'pocket-' if pocket else ''}{entry.model_id.replace('_', '-')}"
    reduction = {"method": entry.method}
    if pocket:
        reduction = saved_reduction(read_config(pocket_path(entry.architecture, entry.method)), entry.method)
    return render(Facts(name, entry, head, reduction, reduction, pocket=pocket), results)


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
    return ModelCard.from_template(
        sections.front_matter(facts, scores),
        template_path=str(template_path()),
        title=facts.repo_id.split("/")[-1],
        description=entry.description,
        weights=sections.weights(facts),
        base=sections.base(facts),
        revision=sections.revision(facts),
        license=AT_EXPORT if manifest is None else manifest.license or "unknown",
        version=facts.version,
        options=sections.options(entry.architecture, facts.token_reduction),
        stages=sections.stages(manifest),
        example=sections.example(manifest),
        picture=sections.picture(facts),
        auto_class=auto_class,
        model_class=facts.head.model_class,
        pin=facts.tag or f"v{facts.version}",
        repo_id=facts.repo_id,
        variant=entry.model_id,
        tasks=",".join(("pocket_scenes",) if facts.pocket else facts.head.tasks),
        scores=sections.score_table(scores, () if facts.pocket else facts.head.tasks),
        tables={name: sections.table(name, results) for name in kind.pocket_tables} if facts.pocket else {},
        benchmark=sections.table(kind.benchmark, results),
        limits=sections.limits(facts),
        citation=CITATIONS.get(entry.method, OWN_METHOD),
    )


def template_path(package: Path = PACKAGE) -> Path:
    """The template: the installed one, else the source tree's."""
    installed = package / "model_cards" / "variant.md.jinja"
    return installed if installed.exists() else package.parent / "model_cards" / "variant.md.jinja"


def standing_cards(results: Path) -> dict[str, ModelCard]:
    """The cards in `model_cards`, by file name: of variants with their checkpoints, and with the bundled models."""
    public = {f"{name}.md": variant_card(name, results) for name in PUBLIC}
    return {**public, **{f"pocket_{name}.md": variant_card(name, results, pocket=True) for name in POCKET}}
