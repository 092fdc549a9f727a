"""METER's heads (CVPR 2022, arXiv 2111.02387)."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform
from transformers.utils.generic import can_return_tuple

from ..core.fusion_heads import AnswerHead, EntailmentHead, FusionHead, FusionHeadOutput, RankHead, SeveralImagesHead
from .meter_model import MeterConfig, MeterModel, MeterPreTrainedModel


class _MeterHead(FusionHead, MeterPreTrainedModel):
    """A head on the pooled states of a text and of one image or several."""

    encoder_class = MeterModel
    pooled_tokens = 2

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **encoder_options,
    ) -> FusionHeadOutput:
        """Run the model.

        Parameters
        ----------
        labels : torch.Tensor, optional
            What the loss of the head takes.
        *args, **kwargs
            As :meth:`MeterModel.forward` takes them. With several images, `pixel_values` and `image_embeds` have them
            as second dimension, and `image_token_type_idx` is each image's number.

        Returns
        -------
        FusionHeadOutput
            `logits [batch, labels]`. With several images `hidden_states`, `attentions` and `report` are lists with an
            entry per image.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values": pixel_values}
        return self.run(labels, {**inputs, **encoder_options})


class MeterForQuestionAnswering(AnswerHead, _MeterHead):
    """METER with a classifier over answers (VQAv2)."""


class MeterForVisualEntailment(EntailmentHead, _MeterHead):
    """METER with a classifier over contradiction, neutral and entailment (SNLI-VE)."""


class MeterForImageAndTextRetrieval(RankHead, _MeterHead):
    """METER with a score of how well a text fits an image."""


class MeterForImagesAndTextClassification(SeveralImagesHead, _MeterHead):
    """METER with a classifier over a text and several images (NLVR2).

    The text is encoded once; the cross-modal layers run once per image.
    """

    def run(self, labels: torch.Tensor | None, inputs: dict) -> FusionHeadOutput:
        """Encode the text first."""
        if inputs.get("text_embeds") is None and inputs["input_ids"] is not None:
            ids = inputs.pop("input_ids")
            inputs["text_embeds"] = self.meter.get_text_features(ids, inputs["attention_mask"])
        return super().run(labels, inputs)


@dataclass
class MeterPreTrainingOutput(ModelOutput):
    """Output of the heads of pre-training.

    Attributes
    ----------
    prediction_logits : torch.Tensor
        `[batch, length, vocabulary]`.
    matching_logits : torch.Tensor
        `[batch, 2]`, of text and image not fitting and fitting.
    """

    prediction_logits: torch.Tensor | None = None
    matching_logits: torch.Tensor | None = None


class MeterForPreTraining(MeterPreTrainedModel):
    """METER with its heads of pre-training: masked words, and whether text and image fit.

    The scores of the vocabulary have weights of their own, not those of the word embeddings.
    """

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        self.meter = MeterModel(config)
        width, words = config.hidden_size, config.text_config.vocab_size
        parts = OrderedDict(transform=BertPredictionHeadTransform(config), decoder=nn.Linear(width, words))
        self.mlm_score = nn.Sequential(parts)
        self.itm_score = nn.Linear(2 * width, 2)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, pixel_values=None) -> MeterPreTrainingOutput:
        """Run the model on texts and images as :meth:`MeterModel.forward` takes them; other arguments it has none."""
        outputs = self.meter(input_ids, attention_mask, pixel_values, return_dict=True)
        return MeterPreTrainingOutput(self.mlm_score(outputs.text_states), self.itm_score(outputs.pooler_output))
