"""METER without head: its configuration and its encoder of text and image (CVPR 2022, arXiv 2111.02387)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import CLIPVisionConfig, PreTrainedConfig, PreTrainedModel, RobertaConfig, RobertaModel
from transformers.modeling_outputs import ModelOutput
from transformers.models.roberta.modeling_roberta import RobertaPooler
from transformers.utils.generic import can_return_tuple

from ..core.attention import key_bias
from ..core.fusion_heads import check_inputs, check_text_length
from .meter_layers import MeterCrossLayer, MeterVisionModel

ROBERTA_BASE = {"layer_norm_eps": 1e-5, "max_position_embeddings": 514, "type_vocab_size": 1}
CLIP_BASE = {"num_hidden_layers": 11, "image_size": 384, "patch_size": 16}


class MeterConfig(PreTrainedConfig):
    """Configuration of METER; the defaults are METER-CLIP16-RoBERTa at 384 pixels.

    Parameters
    ----------
    text_config : RobertaConfig or dict, optional
        The text tower; default: RoBERTa-base. Entries of a dict replace that one's.
    vision_config : CLIPVisionConfig or dict, optional
        The vision tower; default: CLIP ViT-B/16 of 384 pixels without its last block. Entries of a dict replace that
        one's.
    hidden_size, num_attention_heads, intermediate_size : int
        Width, heads and width of the feed-forward networks of the cross-modal layers.
    num_hidden_layers : int
        Pairs of cross-modal layers, one for each modality.
    hidden_act, hidden_dropout_prob, attention_probs_dropout_prob, layer_norm_eps, initializer_range
        As RoBERTa has them, of the cross-modal layers.
    modality_type_vocab_size : int
        Rows of the token types: the text, and each of the images.
    num_images : int
        Images that the head for several images takes.
    """

    model_type: ClassVar = "meter"
    in_pairs: ClassVar = True
    keys_to_ignore_at_inference: ClassVar = ["hidden_states", "attentions", "report"]
    sub_configs: ClassVar = {"text_config": RobertaConfig, "vision_config": CLIPVisionConfig}

    text_config: Any = None
    vision_config: Any = None
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    modality_type_vocab_size: int = 2
    num_images: int = 2
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = RobertaConfig(**{**ROBERTA_BASE, **(self.text_config or {})})
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CLIPVisionConfig(**{**CLIP_BASE, **(self.vision_config or {})})
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        super().__post_init__(**kwargs)

    @property
    def image_size(self) -> int:
        """Side of the images that the vision tower was made for."""
        return self.vision_config.image_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.vision_config.patch_size

    @property
    def max_position_embeddings(self) -> int:
        """Most tokens of a text: RoBERTa's positions start behind that of padding."""
        return self.text_config.max_position_embeddings - self.text_config.pad_token_id - 1


@dataclass
class MeterModelOutput(ModelOutput):
    """Output of the encoder.

    Attributes
    ----------
    text_states, image_states : torch.Tensor
        `[batch, length, channels]` of each modality, CLS first.
    pooler_output : torch.Tensor
        `[batch, 2 * channels]`, the text's, then the image's.
    hidden_states : tuple, optional
        `(text, image)` before each pair of cross-modal layers and after the last.
    attentions : tuple, optional
        `(text to text, text to image, image to image, image to text)` per pair of cross-modal layers.
    report : FusionReport, optional
        What happened to the tokens, of models that drop or merge some.
    """

    text_states: torch.Tensor | None = None
    image_states: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple | None = None
    attentions: tuple | None = None
    report: Any = None


class MeterPreTrainedModel(PreTrainedModel):
    """Initialisation and loading that all classes share."""

    config: MeterConfig
    base_model_prefix = "meter"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules: ClassVar = ["CLIPEncoderLayer", "RobertaLayer", "MeterCrossLayer"]


class MeterModel(MeterPreTrainedModel):
    """METER without head: RoBERTa, CLIP, and pairs of layers in which text and image attend to each other.

    Both layers of a pair read the states before the pair.
    """

    vision_class: ClassVar[type] = MeterVisionModel

    def __init__(self, config: MeterConfig):
        super().__init__(config)
        width = config.hidden_size
        self.text_model = RobertaModel(config.text_config, add_pooling_layer=False)
        self.vision_model = self.vision_class(config.vision_config)
        self.cross_modal_text_transform = nn.Linear(config.text_config.hidden_size, width)
        self.cross_modal_image_transform = nn.Linear(config.vision_config.hidden_size, width)
        self.token_type_embeddings = nn.Embedding(config.modality_type_vocab_size, width)
        depth = config.num_hidden_layers
        self.cross_modal_text_layers = nn.ModuleList([MeterCrossLayer(config) for _ in range(depth)])
        self.cross_modal_image_layers = nn.ModuleList([MeterCrossLayer(config) for _ in range(depth)])
        self.cross_modal_text_pooler = RobertaPooler(config)
        self.cross_modal_image_pooler = RobertaPooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """RoBERTa's word embeddings."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace RoBERTa's word embeddings."""
        self.text_model.set_input_embeddings(value)

    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States `[batch, length, channels]` of the text tower, of texts `[batch, length]`."""
        check_text_length(input_ids.shape[1], self.config.max_position_embeddings)
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """States `[batch, image, channels]` of the vision tower, CLS first, of `[batch, 3, height, width]`."""
        return self.encode_images(pixel_values, None)[0]

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        image_token_type_idx: int = 1,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **fusion_options,
    ) -> MeterModelOutput:
        """Run the encoder.

        Parameters
        ----------
        input_ids : torch.LongTensor
            `[batch, length]`.
        attention_mask : torch.Tensor, optional
            `[batch, length]`, 0 for padding, on the right.
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`.
        text_embeds, image_embeds : torch.Tensor, optional
            What :meth:`get_text_features` and :meth:`get_image_features` gave, instead of `input_ids` and
            `pixel_values`; an image that several texts share is encoded once and repeated here.
        image_token_type_idx : int
            Row of the token types that the image gets.
        output_attentions, output_hidden_states : bool, optional
            What to collect; default: as the configuration says.

        Raises
        ------
        ValueError
            If not exactly one of each pair of inputs is given, if their numbers or shapes differ, if text is padded
            on the left or longer than the model's positions, or if the model lacks the image's token type.
        """
        texts = {"input_ids": input_ids, "text_embeds": text_embeds}
        images = {"pixel_values": pixel_values, "image_embeds": image_embeds}
        attention_mask = check_inputs(self.config, texts, images, attention_mask, image_token_type_idx)
        image_embeds, known = self.encode_images(pixel_values, image_embeds)
        if text_embeds is None:
            text_embeds = self.get_text_features(input_ids, attention_mask)
        text, image = self.embed(text_embeds, image_embeds, image_token_type_idx)
        keep_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        keep_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states, attentions, head, report = self.fuse(
            text, image, attention_mask.bool(), keep_attentions, **known, **fusion_options
        )
        text, image = states[-1]
        return MeterModelOutput(
            text_states=text,
            image_states=image,
            pooler_output=self.pool(text, head),
            hidden_states=tuple(states) if keep_states else None,
            attentions=tuple(attentions) if keep_attentions else None,
            report=report,
        )

    def embed(self, text_embeds: torch.Tensor, image_embeds: torch.Tensor, image_token_type_idx: int) -> tuple:
        """Text and image `[batch, length, channels]` of both towers as the cross-modal layers read them."""
        types = self.token_type_embeddings.weight
        text = self.cross_modal_text_transform(text_embeds) + types[0]
        return text, self.cross_modal_image_transform(image_embeds) + types[image_token_type_idx]

    def encode_images(self, pixel_values, image_embeds) -> tuple[torch.Tensor, dict[str, Any]]:
        """States of the vision tower, unless they are given, and what :meth:`fuse` is to know of them."""
        return self.vision_model(pixel_values) if image_embeds is None else image_embeds, {}

    def fuse(self, text: torch.Tensor, image: torch.Tensor, text_valid: torch.Tensor, keep_attentions: bool) -> tuple:
        """Run the pairs of cross-modal layers.

        Parameters
        ----------
        text, image : torch.Tensor
            `[batch, length, channels]`.
        text_valid : torch.BoolTensor
            `[batch, length]`, False for padding.
        keep_attentions : bool
            Whether to return probabilities.

        Returns
        -------
        tuple
            States of text and image before each pair and after the last, the attentions of each pair, the image's
            states of which its head reads the first, and the output's report.
        """
        text_keys, image_keys = (key_bias(text_valid, text.dtype), None), (None, None)
        states, attentions = [(text, image)], []
        for text_layer, image_layer in zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True):
            before = text, image
            text, *of_text = text_layer(*before, text_keys, image_keys, keep_attentions)[:3]
            image, *of_image = image_layer(*reversed(before), image_keys, text_keys, keep_attentions)[:3]
            states.append((text, image))
            attentions.append((*of_text, *of_image))
        return states, attentions, image, None

    def pool(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Pooled first tokens `[batch, 2 * channels]` of text and image."""
        return torch.cat([self.cross_modal_text_pooler(text), self.cross_modal_image_pooler(image)], dim=-1)
