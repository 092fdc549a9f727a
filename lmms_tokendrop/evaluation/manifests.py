"""The table of variants that lmms-eval, the command line, the tests and the README share. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

LLAVA_NEXT_ADAPTER = "lmms_tokendrop.evaluation.generative"
LLAVA_NEXT_CHECKPOINT = "llava-hf/llava-v1.6-vicuna-7b-hf"
ENCODER_ADAPTER = "lmms_tokendrop.evaluation.encoder"
VILT_CHECKPOINT = "dandelin/vilt-b32-finetuned-vqa"
POCKET = "pocket"


@dataclass(frozen=True)
class Variant:
    """One architecture with one reduction method, as lmms-eval knows it.

    Parameters
    ----------
    model_id
        Name for ``lmms-eval --model``.
    architecture
        Model type of the stock class.
    method
        Reduction method, a key of the architecture's reducers in `lmms_tokendrop.modeling.token_reducer`.
    pretrained
        Checkpoint that is loaded unless ``pretrained=`` names another one; None: one must be named.
    adapter
        Dotted path of the lmms-eval model class.
    description
        One line for tables.
    """

    model_id: str
    architecture: str
    method: str
    pretrained: str | None
    adapter: str
    description: str


VARIANTS: tuple[Variant, ...] = (
    Variant(
        model_id="llava_next_full",
        architecture="llava_next",
        method="none",
        pretrained=LLAVA_NEXT_CHECKPOINT,
        adapter=f"{LLAVA_NEXT_ADAPTER}.LlavaNextFull",
        description="LLaVA-NeXT with every visual token; the baseline",
    ),
    Variant(
        model_id="llava_next_mustdrop",
        architecture="llava_next",
        method="mustdrop",
        pretrained=LLAVA_NEXT_CHECKPOINT,
        adapter=f"{LLAVA_NEXT_ADAPTER}.LlavaNextMustDrop",
        description="LLaVA-NeXT with MustDrop: merging in CLIP, a dual-attention filter in prefill, a smaller cache",
    ),
    Variant(
        model_id="llava_next_random",
        architecture="llava_next",
        method="random",
        pretrained=LLAVA_NEXT_CHECKPOINT,
        adapter=f"{LLAVA_NEXT_ADAPTER}.LlavaNextRandom",
        description="LLaVA-NeXT with visual tokens dropped at random before the language model; the control",
    ),
    Variant(
        model_id="llava_next_uniform",
        architecture="llava_next",
        method="uniform",
        pretrained=LLAVA_NEXT_CHECKPOINT,
        adapter=f"{LLAVA_NEXT_ADAPTER}.LlavaNextUniform",
        description="LLaVA-NeXT with evenly spaced visual tokens kept before the language model; another control",
    ),
    Variant(
        model_id="vilt_full",
        architecture="vilt",
        method="none",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltFull",
        description="ViLT with every token; the baseline",
    ),
    Variant(
        model_id="vilt_pumer",
        architecture="vilt",
        method="pumer",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltPuMer",
        description="ViLT with PuMer: image tokens pruned by what the text looks at, text and image merged apart",
    ),
    Variant(
        model_id="vilt_tome",
        architecture="vilt",
        method="tome",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltToMe",
        description="ViLT with ToMe: the most similar image tokens merge in every block",
    ),
    Variant(
        model_id="vilt_dynamicvit",
        architecture="vilt",
        method="dynamicvit",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.ViltDynamicViT",
        description="ViLT with DynamicViT: trained predictors decide which patches stay; needs a checkpoint with them",
    ),
    Variant(
        model_id="vilt_random",
        architecture="vilt",
        method="random",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltRandom",
        description="ViLT with image tokens dropped at random at PuMer's places; the control",
    ),
    Variant(
        model_id="vilt_cls_attention",
        architecture="vilt",
        method="cls_attention",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltClsAttention",
        description="ViLT with the image tokens that the CLS token looks at least dropped at PuMer's places",
    ),
    Variant(
        model_id="vilt_smres",
        architecture="vilt",
        method="smres",
        pretrained=VILT_CHECKPOINT,
        adapter=f"{ENCODER_ADAPTER}.ViltSmallerResolution",
        description="ViLT with images scaled down and positions interpolated",
    ),
    Variant(
        model_id="meter_full",
        architecture="meter",
        method="none",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterFull",
        description="METER with every token; the baseline",
    ),
    Variant(
        model_id="meter_pumer",
        architecture="meter",
        method="pumer",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterPuMer",
        description="METER with PuMer: tokens leave and merge in the text's layers, text and image apart",
    ),
    Variant(
        model_id="meter_tome",
        architecture="meter",
        method="tome",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterToMe",
        description="METER with ToMe: the most similar image tokens merge in every pair of cross-modal layers",
    ),
    Variant(
        model_id="meter_vision_tome",
        architecture="meter",
        method="vision_tome",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterVisionToMe",
        description="METER with ToMe in its CLIP tower, which has most of its computation",
    ),
    Variant(
        model_id="meter_dynamicvit",
        architecture="meter",
        method="dynamicvit",
        pretrained=None,
        adapter=f"{ENCODER_ADAPTER}.MeterDynamicViT",
        description="METER with DynamicViT: trained predictors decide which patches stay; needs a checkpoint with them",
    ),
    Variant(
        model_id="meter_random",
        architecture="meter",
        method="random",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterRandom",
        description="METER with image tokens dropped at random at PuMer's places; the control",
    ),
    Variant(
        model_id="meter_cls_attention",
        architecture="meter",
        method="cls_attention",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterClsAttention",
        description="METER with the image tokens that the text's CLS looks at least dropped at PuMer's places",
    ),
    Variant(
        model_id="meter_smres",
        architecture="meter",
        method="smres",
        pretrained=POCKET,
        adapter=f"{ENCODER_ADAPTER}.MeterSmallerResolution",
        description="METER with images scaled down and positions interpolated",
    ),
)
"""Every registered variant, in the order in which tables show them."""


def variant(model_id: str) -> Variant:
    """Return the variant named ``model_id``; a `ValueError` lists the names if there's none."""
    for entry in VARIANTS:
        if entry.model_id == model_id:
            return entry
    raise ValueError(f"unknown variant {model_id!r}; registered: {', '.join(entry.model_id for entry in VARIANTS)}")


def select(entries: Sequence[Variant], *, architecture: str | None = None, method: str | None = None) -> list[Variant]:
    """Return the variants of an architecture, with a method, or both; a `ValueError` names what there is instead."""
    chosen = list(entries)
    for name, wanted in (("architecture", architecture), ("method", method)):
        there = list(dict.fromkeys(getattr(entry, name) for entry in chosen))
        if wanted is not None and wanted not in there:
            raise ValueError(f"{name}={wanted!r}; allowed: {', '.join(there)}")
        chosen = [entry for entry in chosen if wanted in (None, getattr(entry, name))]
    return chosen


def manifests() -> list[ModelManifest]:
    """Return what lmms-eval's entry point ``lmms_eval.models`` loads: one manifest per variant."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=entry.model_id, simple_class_path=entry.adapter) for entry in VARIANTS]
