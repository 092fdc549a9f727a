"""The forward pass of a stock model of images and text, with a decoder that drops tokens."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults

from ..ops.eager_parts import on_host, part_by_part, part_by_part_under
from .decoder_inputs import ReductionRequest
from .staged_cache import StagedCache, staged_cache
from .switching import Switchable
from .transformers_compat import cache_argument, takes_cache
from .vision_inputs import check_encoded
from .visual_tokens import VisualTokens

OWN_ARGUMENTS = ("prompt_length", "sample_seeds")


class StagedVlm(Switchable):
    """Runs the stock forward pass of a model of images and text; comes before the stock class in a class's bases.

    Images are encoded before it, so that it is known where each of their rows comes from, and what is to leave goes to
    the decoder with the arguments that the stock class passes on. The class has a staged decoder as `language_model`,
    its `get_image_features` gives `visual_tokens` beside the stock fields: an entry per image, an element per row; and
    its `of_requests` says what that takes of the sequences.

    Attributes
    ----------
    image_inputs : tuple[str, ...]
        Arguments of the forward pass that `get_image_features` takes beside `pixel_values`.
    output_class : type[ModelOutput]
        The stock output with a field `index`.
    """

    image_inputs: ClassVar[tuple[str, ...]] = ()
    output_class: ClassVar[type[ModelOutput]]

    @part_by_part_under(takes_cache, merge_with_config_defaults, can_return_tuple)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        cache: StagedCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict | None = None,
        prompt_length: int | None = None,
        sample_seeds: torch.LongTensor | None = None,
        whole_for: tuple[str, ...] = (),
        **kwargs,
    ) -> ModelOutput:
        """Run the model.

        Parameters
        ----------
        prompt_length, sample_seeds
            See :func:`with_reduction`.
        whole_for : tuple[str, ...]
            Arguments of the caller that count positions of the whole input.
        *args, **kwargs
            As the stock class takes them.

        Returns
        -------
        ModelOutput
            The stock class's, and `index [batch, kept]`: the place of each state's token in the unreduced sequence.

        Raises
        ------
        ValueError
            If the arguments do not fit each other, or tokens left that an argument in `whole_for` counts.
        """
        cache = self._begin(input_ids, pixel_values, inputs_embeds, mm_encoder_outputs, cache, use_cache)
        images = (mm_encoder_outputs or {}).get("image")
        if images is None and pixel_values is not None and pixel_values.size(0) > 0:
            prompt = None if prompt_length is None else prompt_length - cache.seen
            given = {name: kwargs[name] for name in self.image_inputs if name in kwargs}
            given |= self.of_requests(input_ids, pixel_values, kwargs.get("image_sizes"), prompt)
            images = self.get_image_features(pixel_values, **given, return_dict=True)
        request = self._request(input_ids, inputs_embeds, images, cache, prompt_length, sample_seeds)
        outputs = self._stock_forward()(
            self,
            input_ids=input_ids,
            attention_mask=attention_mask,
            **cache_argument(cache),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=None if images is None else {"image": images},
            reduction=request,
            **kwargs,
        )
        length = (inputs_embeds if input_ids is None else input_ids).shape[1]
        return self._output(outputs, cache.left, whole_for, attention_mask, length)

    @on_host
    def _begin(self, input_ids, pixel_values, inputs_embeds, encoded: dict | None, cache, use_cache) -> StagedCache:
        """Check that arguments fit each other; returns the request's cache."""
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if pixel_values is not None and encoded:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        check_encoded(encoded or {})
        if not use_cache and any(stage.point == "after_token" for stage in self.used_reducer.stages_at("decode")):
            raise ValueError("decode_interval: the output-aware policy shrinks a cache; it needs use_cache=True")
        cache = staged_cache(cache, self.config)
        cache.used_with(self.used_reducer.options)
        return cache

    @on_host
    def _request(
        self, input_ids, inputs_embeds, images: Any, cache: StagedCache, prompt_length: int | None, sample_seeds
    ) -> ReductionRequest:
        """What the reducer is asked."""
        reducer, tokens = self.used_reducer, None
        reduces = not cache.seen and reducer.stages()
        if images is not None:
            tokens = VisualTokens.place(images.visual_tokens, self._placeholders(input_ids, inputs_embeds))
        elif reduces and input_ids is not None and self._placeholders(input_ids[:, :prompt_length], None).any():
            raise ValueError("input_ids has image placeholders, but there are no pixel_values to reduce")
        return ReductionRequest(reducer, tokens, prompt_length, sample_seeds)

    def _placeholders(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """`[batch, length]`, True where images go."""
        if input_ids is not None:
            return input_ids == self.config.image_token_id
        token = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(token)).all(-1)

    @on_host
    def _stock_forward(self) -> Callable[..., ModelOutput]:
        """The stock class's, without decorators: this class has them, and their frames would be compiled."""
        return part_by_part(inspect.unwrap(super().forward))

    @on_host
    def get_placeholder_mask(self, *args, **kwargs):
        """As the stock class's; counts by values."""
        return super().get_placeholder_mask(*args, **kwargs)

    @on_host
    def _output(self, outputs: ModelOutput, index: torch.Tensor, whole_for, attention_mask, length: int) -> ModelOutput:
        for argument in whole_for:
            check_nothing_left(argument, index, attention_mask, length)
        return self.output_class(**outputs, index=index)


def with_reduction(stock: Callable) -> Callable:
    """The forward pass of a stock class with a language modelling head, for a model whose base is a :class:`StagedVlm`.

    Its signature is the stock one and `prompt_length` and `sample_seeds`.
    """

    @takes_cache
    def forward(self, *args, cache=None, labels=None, logits_to_keep: int | torch.Tensor = 0, **kwargs) -> ModelOutput:
        """Run the model.

        Parameters
        ----------
        prompt_length : int, optional
            Tokens of the input that are the prompt. Later ones are an answer: they do not decide what stays, and see
            in every layer what the cache would hold after the prompt. Default: all.
        sample_seeds : torch.LongTensor, optional
            `[batch]`, seeds of `method="random"`.
        *args, **kwargs
            As the stock class takes them. Positions, mask and cache are those of the unreduced sequence.

        Returns
        -------
        ModelOutput
            `logits [batch, what is left of length, vocabulary]`, aligned on the right. `hidden_states` and
            `attentions` have the stock number of entries, and the length of what a layer received; behind
            `prompt_length` those of the answer are appended, see :func:`join_states` and :func:`join_attentions`.

        Raises
        ------
        ValueError
            If the budget can't be reached, the prompt ends in an image, the mask pads on the right, or `labels` are
            given and tokens left.
        """
        positions = {"labels": labels, "logits_to_keep": logits_to_keep}
        whole_for = tuple(name for name, value in positions.items() if isinstance(value, torch.Tensor))
        return stock(self, *args, **cache_argument(cache), **positions, whole_for=whole_for, **kwargs)

    signature = inspect.signature(stock)
    *named, rest = signature.parameters.values()
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in OWN_ARGUMENTS]
    forward.__signature__ = signature.replace(parameters=[*named, *own, rest])  # type: ignore[attr-defined]
    return forward


def check_nothing_left(argument: str, index: torch.Tensor, attention_mask: torch.Tensor | None, length: int) -> None:
    """Fail where an argument counts positions of the whole input and some of its tokens left.

    Parameters
    ----------
    argument : str
        The argument, for the message.
    index : torch.LongTensor
        `[batch, kept]`, place of each token that is left; -1 for padding.
    attention_mask : torch.Tensor or None
        `[batch, past + length]`.
    length : int
        Tokens of the input.

    Raises
    ------
    ValueError
        If a sequence lost a token.
    """
    kept = (index >= 0).sum(-1)
    whole = torch.full_like(kept, length) if attention_mask is None else attention_mask[:, -length:].sum(-1)
    if index.shape[1] != length or not bool((kept == whole.to(kept.device)).all()):
        raise ValueError(
            f"{argument} counts positions of the unreduced input; of {whole.tolist()} tokens {kept.tolist()} are left. "
            "Score an answer on the cache of its prompt instead"
        )
