"""METER with the heads of its pre-training."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform
from transformers.utils.generic import can_return_tuple

from .meter_model import MeterConfig, MeterModel, MeterPreTrainedModel


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


class MeterMaskedLanguageHead(nn.Module):
    """Scores of the vocabulary; its weights are its own, not the word embeddings."""

    def __init__(self, config: MeterConfig):
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.text_config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, length, vocabulary]` of states `[batch, length, channels]`."""
        return self.decoder(self.transform(hidden_states))


class MeterForPreTraining(MeterPreTrainedModel):
    """METER with its heads of pre-training: masked words, and whether text and image fit."""

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        self.meter = MeterModel(config)
        self.mlm_score = MeterMaskedLanguageHead(config)
        self.itm_score = nn.Linear(2 * config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, pixel_values=None) -> MeterPreTrainingOutput:
        """Run the model on texts and images as :meth:`MeterModel.forward` takes them; other arguments it has none."""
        outputs = self.meter(input_ids, attention_mask, pixel_values, return_dict=True)
        return MeterPreTrainingOutput(self.mlm_score(outputs.text_states), self.itm_score(outputs.pooler_output))
