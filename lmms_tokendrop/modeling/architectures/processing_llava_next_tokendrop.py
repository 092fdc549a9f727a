"""LLaVA-NeXT's processor for the models here."""

from transformers import LlavaNextProcessor


class LlavaNextTokenDropProcessor(LlavaNextProcessor):
    """The stock processor, which also takes `videos` and `audios` that are empty.

    lmms-eval's model `huggingface` passes them along with the images, and the stock processor refuses even empty ones.
    It is saved with its code, so that `AutoProcessor` asks for `trust_remote_code` instead of taking another class.
    """

    _auto_class = "AutoProcessor"

    def __call__(self, images=None, text=None, videos=None, audios=None, **kwargs):
        """Prepare inputs; the parameters are the stock ones.

        Raises
        ------
        ValueError
            If there is a video or a sound.
        """
        if videos or audios:
            raise ValueError("videos, audios: LLaVA-NeXT takes images and text only")
        return super().__call__(images=images, text=text, **kwargs)


class FlatLlavaNextProcessor(LlavaNextTokenDropProcessor):
    """Counts placeholders for `packing="flat"`: every tile whole, no newlines."""

    def _get_unpadded_features(self, height, width, patches_height, patches_width, scale_height, scale_width):
        return patches_height * scale_height * patches_width * scale_width, 0
