"""METER's pairs of layers with stages: two streams of tokens, of which some leave in the text's layer of a pair."""

from functools import cache, partial

import torch

from ..core.attention import fusion_attention_rows, key_bias
from ..core.fusion_run import Carry, FusionRun
from ..core.fusion_tokens import FusionTokens
from ..ops.eager_parts import on_host, part_by_part
from ..ops.token_ops import padded_indices, ranks, take_tokens


class Streams:
    """One sequence of text and image tokens as METER's two streams, each padded on the right.

    Parameters
    ----------
    tokens : FusionTokens
        The sequence.

    Attributes
    ----------
    index : tuple[torch.LongTensor, torch.LongTensor]
        `[batch, stream]` of the text and of the image, places of the stream's tokens in the sequence.
    valid : tuple[torch.BoolTensor, torch.BoolTensor]
        `[batch, stream]` of both, False for padding.
    place : torch.LongTensor
        `[batch, length]`, place of each token in the text's stream followed by the image's.
    """

    def __init__(self, tokens: FusionTokens):
        self.tokens, kinds = tokens, (tokens.text, tokens.image)
        self.index, self.valid = zip(*(padded_indices(kind, "right") for kind in kinds), strict=True)
        behind = self.index[0].shape[1] + tokens.image.cumsum(-1) - 1
        self.place = torch.where(tokens.image, behind, tokens.text.cumsum(-1) - 1)

    def split(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values `[batch, length, ...]` of the sequence as those of the text's and of the image's stream."""
        return take_tokens(values, self.index[0]), take_tokens(values, self.index[1])

    def join(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Values of the streams as those of the sequence."""
        return take_tokens(torch.cat([text, image], dim=1), self.place)

    def attention_rows(self, query: torch.Tensor, key: torch.Tensor, bias, rows: torch.Tensor) -> torch.Tensor:
        """Attention `[batch, heads, wanted, length]` of the text tokens that `rows` marks to the image."""
        wanted = take_tokens(rows, self.index[0]) & self.valid[0]
        found = fusion_attention_rows(query, key, bias, wanted)
        whole = torch.nn.functional.pad(found, (self.index[0].shape[1], 0))
        whole = whole.gather(-1, self.place[:, None, None].expand(-1, *whole.shape[1:3], -1))
        return whole.masked_fill(~self.tokens.image[:, None, None], 0.0)


class CoAttention(FusionRun):
    """One pass through the pairs of layers.

    Parameters
    ----------
    reducer, tokens, sample_seeds, training
        See :class:`FusionRun`; text comes before the image.
    text, image : torch.Tensor
        `[batch, length, channels]`.

    Attributes
    ----------
    text, image : torch.Tensor
        The states so far.
    """

    @on_host
    def __init__(self, reducer, tokens, sample_seeds, training, text: torch.Tensor, image: torch.Tensor):
        super().__init__(reducer, tokens, sample_seeds, training)
        self.streams = Streams(self.tokens)
        self.text, self.image = self.streams.split(torch.cat([text, image], dim=1))
        self.keys = self._keys()

    @part_by_part
    def run_pair(self, number: int, text_layer, image_layer, output_attentions: bool) -> tuple:
        """Run a pair of layers and its stages; what its four attentions give, as METER's output has them."""
        keys, decide = self._before_pair(number)
        before = self.text
        self.text, *of_text, image, kept = text_layer(before, self.image, *keys, output_attentions, decide=decide)
        text, *keys, itself = self._behind_text(kept, before, keys)
        self.image, *of_image, _, _ = image_layer(image, text, *keys, output_attentions, itself)
        return (*of_text, *of_image)

    @on_host
    def image_head(self) -> torch.Tensor:
        """State `[batch, 1, channels]` that the image's head reads: its CLS unless the method says otherwise."""
        marked = self.carry.get("image_head", self.tokens.image_cls.float())
        return take_tokens(self.image, self.streams.split(marked)[1].argmax(-1, keepdim=True))

    @on_host
    def _before_pair(self, number: int) -> tuple:
        """Drop tokens before a pair, or, in soft training, weigh them; its keys and what decides inside it."""
        if (number, "before_block") in self.stages:
            states = self.stage_before_block(number, self.streams.join(self.text, self.image))
            if not self.soft:
                self.streams = Streams(self.tokens)
                self.text, self.image = self.streams.split(states)
            self.keys = self._keys()
        self.report.received.append(self.tokens)
        return self.keys, self.decision(number, self.streams, self.keys[1][0])

    def decide(self, stage, streams: Streams, carry, bias, text, image, query, key, text_key):  # type: ignore[override]
        """What is left: streams and carry, the text's states and the image's; see :class:`MeterCrossLayer`."""
        providers = {
            "keys": cache(lambda: streams.join(text_key.mean(1), key.mean(1))),
            "queries": cache(lambda: streams.join(query.mean(1), torch.zeros_like(key[:, 0]))),
            "attention_rows": partial(streams.attention_rows, query, key, bias),
        }
        (tokens, carry), states = self.leave(stage, streams.tokens, carry, streams.join(text, image), **providers)
        left = Streams(tokens)
        return (left, carry), *left.split(states)

    @on_host
    def _behind_text(self, kept: tuple[Streams, Carry] | None, text_before: torch.Tensor, keys_before: tuple) -> tuple:
        """What the image's layer reads beside the image: the text, keys of image and text, and who counts in full."""
        if kept is not None:
            self.streams, self.carry = kept
            self.tokens, self.keys = self.streams.tokens, self._keys()
        self.report.left.append(self.tokens)
        if self.reducer.sequential:
            return self.text, *reversed(self.keys), self._same_number()
        return text_before, self.keys[1], keys_before[0], None

    def _keys(self) -> tuple:
        """Bias of the text's and of the image's keys, each with how much they count."""
        streams, dtype = self.streams, self.text.dtype
        sizes = streams.split(streams.tokens.size) if self.proportional else (None, None)
        weights = (None, None) if self.key_weight is None else streams.split(self.key_weight)
        biases = (key_bias(valid, dtype, size) for valid, size in zip(streams.valid, sizes, strict=True))
        return tuple(zip(biases, weights, strict=True))

    def _same_number(self) -> torch.Tensor:
        """`[batch, image, text]`, True where tokens have the same number in the release's order of their stream."""
        own = -self.tokens.place.float()
        text = ranks(self.streams.split(self.carry.get("text_priority", own))[0])
        image = ranks(self.streams.split(self.carry.get("image_priority", own))[1])
        return image.unsqueeze(-1) == text.unsqueeze(1)
