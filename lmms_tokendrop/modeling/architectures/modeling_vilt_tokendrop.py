"""ViLT with fewer tokens, with its heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
import torch
from torch import nn
from transformers import (
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import (
    AnswerHead,
    FusionHead,
    FusionHeadOutput,
    RankHead,
    SeveralImagesHead,
    check_several_images,
    classifier,
    name_entailment_labels,
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

    vilt: ViltTokenDropModel

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.LongTensor | None = None,
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
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        images = {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "image_embeds": image_embeds}
        collect = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        options = {"token_type_ids": token_type_ids, "sample_seeds": sample_seeds, **collect}
        return self.run(text, images, labels, options)


class ViltTokenDropForQuestionAnswering(AnswerHead, _ViltHead, ViltForQuestionAnswering):
    """ViLT with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class ViltTokenDropForVisualEntailment(_ViltHead):
    """ViLT with a classifier over contradiction, neutral and entailment (SNLI-VE). Stock transformers has no such head.

    The classifier has the form and the parameter names of the question answering head; the loss is cross entropy.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        name_entailment_labels(config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        self.classifier = classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)
        self.post_init()


class ViltTokenDropForImageAndTextRetrieval(RankHead, _ViltHead, ViltForImageAndTextRetrieval):
    """ViLT with a score of how well a text fits an image that drops or merges tokens."""

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        self.vilt = ViltTokenDropModel(config)
        self.rank_output = nn.Linear(config.hidden_size, 1)
        self.post_init()


class ViltTokenDropForImagesAndTextClassification(SeveralImagesHead, _ViltHead, ViltForImagesAndTextClassification):
    """ViLT with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The encoder runs once per image, and the text is reduced anew beside each. `pixel_values` are `[batch, images, 3,
    height, width]`; `pixel_mask` and `image_embeds` have the same two first dimensions. A model of one image takes all
    of them without `images` too.
    """

    def __init__(self, config: ViltTokenDropConfig):
        ViltPreTrainedModel.__init__(self, config)
        check_several_images(config)
        self.num_labels = config.num_labels
        self.vilt = ViltTokenDropModel(config)
        width = config.hidden_size * config.num_images
        self.classifier = classifier(width, width, config.num_labels)
        self.post_init()

    def run(self, text: dict, images: dict, labels: torch.Tensor | None, options: dict) -> FusionHeadOutput:
        """Also of images `[batch, ...]` alone."""
        alone = {"pixel_values": 4, "image_embeds": 3}
        if any(images[name] is not None and images[name].ndim == ndim for name, ndim in alone.items()):
            images = {name: None if values is None else values[:, None] for name, values in images.items()}
        return super().run(text, images, labels, options)
