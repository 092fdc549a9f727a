"""What each architecture needs in a Hub repository. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODELING = "lmms_tokendrop.modeling"
LLAVA_NEXT_PROCESSING = "processing_llava_next_tokendrop"


@dataclass(frozen=True)
class Head:
    """A model class that can be exported.

    Parameters
    ----------
    model_class
        Name in the architecture's module.
    pipeline_tag, auto_class
        The Hub's name of the task, and its auto class of transformers; None if there's none, so that only ``AutoModel``
        loads the model.
    tasks
        Tasks of lmms-eval that a card has rows for, measured or not.
    images
        Number of images that go with a text.
    """

    model_class: str
    pipeline_tag: str | None = None
    auto_class: str | None = None
    tasks: tuple[str, ...] = ()
    images: int = 1


@dataclass(frozen=True)
class Architecture:
    """The code of an architecture.

    Parameters
    ----------
    module
        File in `lmms_tokendrop.modeling`, without ``.py``, that has all classes named here.
    config_class
        Configuration.
    heads
        What is exported for each class that a checkpoint's ``architectures`` may name.
    processors
        Module and class of the processor for each value of the option ``packing``; empty if the stock one serves.
    benchmarks
        Table of `lmms_tokendrop.results.tables` with MACs and time, for each method that has a row there.
    pocket_tables
        Tables there with what the bundled model of this architecture was measured on.
    """

    module: str
    config_class: str
    heads: Mapping[str, Head]
    processors: Mapping[str, str]
    benchmarks: Mapping[str, str]
    pocket_tables: tuple[str, ...]

    def head(self, names: list[str] | None) -> Head:
        """The head of a checkpoint.

        Parameters
        ----------
        names
            ``architectures`` of its configuration.

        Raises
        ------
        ValueError
            If there is no head for it; the message names those that exist.
        """
        for name in names or ():
            if name in self.heads:
                return self.heads[name]
        raise ValueError(f"architectures={names!r} in the base's config; allowed: {', '.join(self.heads)}")

    def auto_map(self, head: Head) -> dict[str, str]:
        """``auto_map`` of the configuration. ``AutoModel`` gives the class with the head, as stock loaders expect."""
        model = f"{self.module}.{head.model_class}"
        task = {} if head.auto_class is None else {head.auto_class: model}
        return {"AutoConfig": f"{self.module}.{self.config_class}", "AutoModel": model, **task}

    def processor(self, reduction: Mapping[str, Any]) -> str | None:
        """Module and class of the processor for some options of a method; None for the stock one."""
        return self.processors.get(reduction.get("packing", "spatial"))


def _encoder_heads(stock: str) -> dict[str, Head]:
    """The heads of an encoder of text and image, under the names of the stock and of the reduced classes."""
    reduced = f"{stock}TokenDrop"
    rows = {
        "ForQuestionAnswering": Head(
            f"{reduced}ForQuestionAnswering",
            "visual-question-answering",
            "AutoModelForVisualQuestionAnswering",
            tasks=("tokendrop_vqav2",),
        ),
        "ForVisualEntailment": Head(f"{reduced}ForVisualEntailment", tasks=("tokendrop_snli_ve",)),
        "ForImagesAndTextClassification": Head(
            f"{reduced}ForImagesAndTextClassification", tasks=("tokendrop_nlvr2",), images=2
        ),
        "ForImageAndTextRetrieval": Head(f"{reduced}ForImageAndTextRetrieval", tasks=("tokendrop_flickr30k",)),
    }
    return {f"{name}{ending}": head for ending, head in rows.items() for name in (stock, reduced)}


LLAVA_NEXT_HEAD = Head(
    "LlavaNextTokenDropForConditionalGeneration",
    "image-text-to-text",
    "AutoModelForImageTextToText",
    tasks=("gqa", "pope", "textvqa_val", "vizwiz_vqa_val"),
)

ARCHITECTURES: dict[str, Architecture] = {
    "llava_next": Architecture(
        module="modeling_llava_next_tokendrop",
        config_class="LlavaNextTokenDropConfig",
        heads={
            "LlavaNextForConditionalGeneration": LLAVA_NEXT_HEAD,
            LLAVA_NEXT_HEAD.model_class: LLAVA_NEXT_HEAD,
        },
        processors={
            "spatial": f"{LLAVA_NEXT_PROCESSING}.LlavaNextTokenDropProcessor",
            "flat": f"{LLAVA_NEXT_PROCESSING}.FlatLlavaNextProcessor",
        },
        benchmarks={"mustdrop": "prefill"},
        pocket_tables=("pocket-scenes", "easy-vqa"),
    ),
    "vilt": Architecture(
        module="modeling_vilt_tokendrop",
        config_class="ViltTokenDropConfig",
        heads=_encoder_heads("Vilt"),
        processors={},
        benchmarks=dict.fromkeys(("none", "pumer", "tome", "dynamicvit", "random", "smres"), "throughput-vilt"),
        pocket_tables=("pocket-vilt-methods",),
    ),
    "meter": Architecture(
        module="modeling_meter_tokendrop",
        config_class="MeterTokenDropConfig",
        heads=_encoder_heads("Meter"),
        processors={},
        benchmarks=dict.fromkeys(
            ("none", "pumer", "tome", "vision_tome", "dynamicvit", "random", "smres"), "throughput-meter"
        ),
        pocket_tables=("pocket-meter-methods",),
    ),
}
"""The exportable architectures, by the model type of the stock class."""


def architecture(name: str) -> Architecture:
    """Return an entry of `ARCHITECTURES`; a `ValueError` lists the names if there's none."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r} can't be exported; allowed: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
