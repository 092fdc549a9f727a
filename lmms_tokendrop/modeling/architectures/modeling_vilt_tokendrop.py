"""ViLT with fewer tokens, with its heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
import torch
from transformers import (
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import (
    IMAGES,
    AnswerHead,
    EntailmentHead,
    FusionHead,
    FusionHeadOutput,
    RankHead,
    SeveralImagesHead,
)
from .staged_vilt_model import (
    ViltTokenDropConfig,
    ViltTokenDropModel,
    ViltTokenDropModelOutput,
    ViltTokenDropPreTrainedModel,
)

__all__ = [
    "FusionHeadOutput",
    "ViltTokenDropConfig",
    "ViltTokenDropForImageAndTextRetrieval",
    "ViltTokenDropForImagesAndTextClassification",
    "ViltTokenDropForQuestionAnswering",
    "ViltTokenDropForVisualEntailment",
    "ViltTokenDropModel",
    "ViltTokenDropModelOutput",
    "ViltTokenDropPreTrainedModel",
]


class _ViltHead(FusionHead, ViltTokenDropPreTrainedModel):
    """A head on pooled states of a text and of one image or several."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.vilt = ViltTokenDropModel(config)
        self.build_head(config.hidden_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options,
    ) -> FusionHeadOutput:
        """Run the model.

        Parameters
        ----------
        labels : torch.Tensor, optional
            What the loss of the head takes.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them; unknown names raise a TypeError.

        Returns
        -------
        FusionHeadOutput
            `logits [batch, labels]`; `report` says what happened to the tokens. With several images `hidden_states`,
            `attentions` and `report` are lists with an entry per image.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        images = {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "image_embeds": image_embeds}
        return self.run(labels, {**text, "inputs_embeds": inputs_embeds, **images, **options})


class ViltTokenDropForQuestionAnswering(AnswerHead, _ViltHead, ViltForQuestionAnswering):
    """ViLT with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says."""


class ViltTokenDropForVisualEntailment(EntailmentHead, _ViltHead):
    """ViLT with a classifier over contradiction, neutral and entailment (SNLI-VE). Stock transformers has no such head.

    The classifier has the form and the parameter names of the question answering head; the loss is cross entropy.
    """


class ViltTokenDropForImageAndTextRetrieval(RankHead, _ViltHead, ViltForImageAndTextRetrieval):
    """ViLT with a score of how well a text fits an image that drops or merges tokens."""


class ViltTokenDropForImagesAndTextClassification(SeveralImagesHead, _ViltHead, ViltForImagesAndTextClassification):
    """ViLT with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The encoder runs once per image, and the text is reduced anew beside each. `pixel_values` are `[batch, images, 3,
    height, width]`; `pixel_mask` and `image_embeds` have the same two first dimensions. A model of one image takes all
    of them without `images` too.
    """

    def head_width(self, channels: int) -> int:
        """As wide as what it reads."""
        return channels * self.config.num_images

    def run(self, labels: torch.Tensor | None, inputs: dict) -> FusionHeadOutput:
        """Also of images `[batch, ...]` alone."""
        alone = {"pixel_values": 4, "image_embeds": 3}
        if any(inputs[name] is not None and inputs[name].ndim == ndim for name, ndim in alone.items()):
            inputs = {**inputs, **{name: inputs[name][:, None] for name in IMAGES if inputs[name] is not None}}
        return super().run(labels, inputs)
