"""The outputs that models have."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    name: str
    ending: str
    pipeline_tag: str | None = None
    auto_class: str | None = None
    tasks: tuple[str, ...] = ()
    images: int = 1


ENCODER_HEADS = (
    Head(
        "question_answering",
        "QuestionAnswering",
        "visual-question-answering",
        "AutoModelForVisualQuestionAnswering",
        tasks=("tokendrop_vqav2",),
    ),
    Head("visual_entailment", "VisualEntailment", tasks=("tokendrop_snli_ve",)),
    Head("images_and_text_classification", "ImagesAndTextClassification", tasks=("tokendrop_nlvr2",), images=2),
    Head("image_and_text_retrieval", "ImageAndTextRetrieval", tasks=("tokendrop_flickr30k",)),
)
"""The heads of encoders of text and image."""
