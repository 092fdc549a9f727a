"""ViLT with fewer tokens: its configuration, its loading and its encoder; the heads are beside it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import ViltConfig, ViltModel, ViltPreTrainedModel
from transformers.modeling_outputs import ModelOutput
from transformers.models.vilt.modeling_vilt import ViltPooler
from transformers.utils.generic import can_return_tuple

from .fusion_reduction_config import FusionReductionConfig
from .fusion_tokens import FusionReport
from .generation import check_loaded
from .staged_vilt import StagedViltEmbeddings, StagedViltEncoder


class ViltTokenDropConfig(ViltConfig):
    """ViLT's configuration and a `token_reduction`.

    Parameters
    ----------
    token_reduction : dict, optional
        Options of :class:`FusionReductionConfig`; None is the unreduced model.
    """

    model_type = "vilt_tokendrop"
    keys_to_ignore_at_inference: ClassVar = ["hidden_states", "attentions", "report"]
    token_reduction: dict | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.token_reduction = FusionReductionConfig.from_dict(self.token_reduction).to_dict()


@dataclass
class ViltTokenDropModelOutput(ModelOutput):
    """Output of the encoder.

    Attributes
    ----------
    last_hidden_state : torch.Tensor
        `[batch, what is left, channels]`, padded on the right; row 0 is the text's CLS.
    pooler_output : torch.Tensor
        `[batch, channels]`.
    hidden_states, attentions : tuple of torch.Tensor, optional
        Per layer; lengths fall where tokens leave.
    report : FusionReport
        What happened to the tokens.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple | None = None
    attentions: tuple | None = None
    report: FusionReport | None = None


@dataclass
class ViltTokenDropOutput(ModelOutput):
    """Output of a head.

    Attributes
    ----------
    loss : torch.Tensor, optional
        Where labels were given.
    logits : torch.Tensor
        `[batch, labels]`.
    hidden_states, attentions : tuple, optional
        Per layer; a list of those per image for several images.
    report : FusionReport or list[FusionReport]
        What happened to the tokens; a list for several images.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: Any = None
    attentions: Any = None
    report: Any = None


class ViltTokenDropPreTrainedModel(ViltPreTrainedModel):
    """Loading and attention backends that all classes share."""

    config: ViltTokenDropConfig
    config_class = ViltTokenDropConfig
    _supports_sdpa = True
    _no_split_modules: ClassVar = ["ViltTokenDropModel"]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        config=None,
        token_reduction: dict | None = None,
        new_parameters: Sequence[str] = (),
        output_loading_info: bool = False,
        **kwargs,
    ):
        """Load a stock ViLT checkpoint, or one of this class.

        Parameters
        ----------
        pretrained_model_name_or_path : str or os.PathLike
            Repository or folder.
        config : ViltTokenDropConfig, optional
            Default: the checkpoint's.
        token_reduction : dict, optional
            Options of :class:`FusionReductionConfig`; default: the config's.
        new_parameters : Sequence[str]
            Prefixes of parameters that the checkpoint need not have, such as `("vilt.token_reducer.",)` to start
            training DynamicViT's predictors. They are initialised.
        output_loading_info : bool, optional
            Whether to return the loading report too.
        *args, **kwargs
            As `PreTrainedModel.from_pretrained` takes them.

        Returns
        -------
        ViltTokenDropPreTrainedModel
            The model, in eval mode; with `output_loading_info` a pair of it and a dict.

        Raises
        ------
        ValueError
            If an option is wrong, or if the checkpoint's keys are not exactly the model's.
        """
        if config is not None and token_reduction is not None:
            config = copy.deepcopy(config)
            config.token_reduction = FusionReductionConfig.from_dict(token_reduction).to_dict()
        elif token_reduction is not None:
            kwargs["token_reduction"] = FusionReductionConfig.from_dict(token_reduction).to_dict()
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
        )
        missing = {key for key in info["missing_keys"] if not key.startswith(tuple(new_parameters))}
        if any("token_reducer." in key for key in missing):
            raise ValueError(
                f"method {model.config.token_reduction['method']!r} has trained weights and this checkpoint has none "
                "of them; to start training them, pass new_parameters=('vilt.token_reducer.',)"
            )
        check_loaded(cls, {**info, "missing_keys": missing})
        return (model, info) if output_loading_info else model


class ViltTokenDropModel(ViltTokenDropPreTrainedModel, ViltModel):
    """ViLT without head, with a token reducer."""

    def __init__(self, config: ViltTokenDropConfig, add_pooling_layer: bool = True):
        ViltPreTrainedModel.__init__(self, config)
        options = FusionReductionConfig.from_dict(config.token_reduction)
        self.embeddings = StagedViltEmbeddings(config)
        self.encoder = StagedViltEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = ViltPooler(config) if add_pooling_layer else None
        self.token_reducer = options.build(config.num_hidden_layers, config.hidden_size, config.image_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        image_token_type_idx: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        sample_seeds: torch.Tensor | None = None,
        **kwargs,
    ) -> ViltTokenDropModelOutput:
        """Run the encoder.

        Parameters
        ----------
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of methods that draw at random; default: 0.
        *args, **kwargs
            As the stock class takes them.

        Raises
        ------
        ValueError
            If not exactly one of each pair of inputs is given, or if text is padded on the left.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if (pixel_values is None) == (image_embeds is None):
            raise ValueError("You must specify exactly one of pixel_values or image_embeds")
        text = input_ids if input_ids is not None else inputs_embeds
        images = pixel_values if pixel_values is not None else image_embeds
        if len(text) != len(images):
            raise ValueError(f"{len(text)} texts and {len(images)} images; their numbers must be equal")
        if attention_mask is None:
            attention_mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
        if not bool(attention_mask[:, 0].all()):
            raise ValueError("attention_mask: the text must be padded on the right; the head reads its first token")
        if sample_seeds is None:
            sample_seeds = torch.zeros(len(text), dtype=torch.long)
        embeddings, tokens, patches = self.embeddings(
            input_ids,
            attention_mask,
            token_type_ids,
            pixel_values,
            pixel_mask,
            inputs_embeds,
            image_embeds,
            image_token_type_idx,
            self.token_reducer.image_size,
        )
        outputs = self.encoder(
            embeddings,
            tokens,
            self.token_reducer,
            sample_seeds,
            self.config.output_attentions if output_attentions is None else output_attentions,
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        outputs.report.patches = patches
        states = self.layernorm(outputs.last_hidden_state)
        return ViltTokenDropModelOutput(
            last_hidden_state=states,
            pooler_output=None if self.pooler is None else self.pooler(states),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            report=outputs.report,
        )
