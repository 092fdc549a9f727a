"""The outputs that models have."""

from __future__ import annotations

from dataclasses import dataclass

TWO_IMAGES = "images_and_text_classification"
RETRIEVAL = "image_and_text_retrieval"


@dataclass(frozen=True)
class Head:
    """A model class with an output.

    Parameters
    ----------
    name
        What the model argument ``head`` calls it.
    ending
        What follows ``For`` in the names of its classes.
    pipeline_tag, auto_class
        The Hub's name of the task, and its auto class of transformers; None if there's none, so that only ``AutoModel``
        loads the model.
    tasks
        Tasks of lmms-eval that a card has rows for, measured or not.
    images
        Number of images that go with a text.
    training
        Task of ``lmms-tokendrop train`` that trains it; None if there is none.
    """

    name: str
    ending: str
    pipeline_tag: str | None = None
    auto_class: str | None = None
    tasks: tuple[str, ...] = ()
    images: int = 1
    training: str | None = None


ENCODER_HEADS = (
    Head(
        "question_answering",
        "QuestionAnswering",
        "visual-question-answering",
        "AutoModelForVisualQuestionAnswering",
        tasks=("tokendrop_vqav2",),
        training="vqa",
    ),
    Head("visual_entailment", "VisualEntailment", tasks=("tokendrop_snli_ve",), training="snli-ve"),
    Head(TWO_IMAGES, "ImagesAndTextClassification", tasks=("tokendrop_nlvr2",), images=2, training="nlvr2"),
    Head(RETRIEVAL, "ImageAndTextRetrieval", tasks=("tokendrop_flickr30k",), training="retrieval"),
)
"""The heads of encoders of text and image."""
