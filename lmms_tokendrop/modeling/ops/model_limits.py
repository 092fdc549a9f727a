"""What a model has room for, and what happens beyond: one line that names the limit."""

from transformers.utils import logging

logger = logging.get_logger(__name__)


def check_text_length(length: int, limit: int) -> None:
    """Raise a ValueError if a text has more tokens than the model has learned positions."""
    if length > limit:
        raise ValueError(f"the text has {length} tokens; the model has positions for max_position_embeddings={limit}")


def check_token_type(index: int | None, rows: int) -> None:
    """Raise a ValueError unless an image's token type is one of the model's; the text's is 0."""
    if index is not None and not 0 <= index < rows:
        raise ValueError(
            f"image_token_type_idx={index}; allowed: 0 to {rows - 1}, the model's modality_type_vocab_size"
        )


def warn_of_long_sequence(length: int, limit: int | None) -> None:
    """Warn, once, of more tokens than a model with rotary positions was made for; it takes them nevertheless."""
    if limit is not None and length > limit:
        logger.warning_once(
            f"a sequence has more tokens than max_position_embeddings={limit}, what the model was made for; its "
            "answers may be wrong"
        )


def warn_of_many_patches(patches: int, limit: int) -> None:
    """Warn, once, of images with more patches than the model reads."""
    if patches > limit:
        logger.warning_once(f"an image has more patches than max_image_length={limit}; only so many of them are read")
