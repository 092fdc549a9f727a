"""METER's processor, from stock parts: any checkpoint that holds it loads with `AutoProcessor`."""

from transformers import CLIPImageProcessor, CLIPProcessor, PreTrainedTokenizerBase


def meter_processor(tokenizer: PreTrainedTokenizerBase, image_size: int = 384, resize: str = "crop") -> CLIPProcessor:
    """Build METER's processor.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        RoBERTa's tokenizer, or that of the model's own vocabulary, padding on the right.
    image_size : int
        Side of the images in pixels, a multiple of the model's patch size.
    resize : {"crop", "square"}
        Scale the short side and crop the centre, as METER does, or scale to a square, as PuMer does.

    Returns
    -------
    CLIPProcessor
        Bicubic scaling, CLIP's mean and deviation.

    Raises
    ------
    ValueError
        If `resize` is neither.
    """
    square = {"height": image_size, "width": image_size}
    if resize == "crop":
        images = CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=square)
    elif resize == "square":
        images = CLIPImageProcessor(size=square, do_center_crop=False)
    else:
        raise ValueError(f"resize={resize!r}; allowed: 'crop', 'square'")
    return CLIPProcessor(images, tokenizer)
