"""What a decoder gives for an input that ran through it whole, or in two chunks: prompt and answer."""

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast


def joined(chunks: list[BaseModelOutputWithPast], keys: list[list[torch.Tensor]]) -> BaseModelOutputWithPast:
    """The output of an input that ran in one chunk, or in two; for `keys` of each see :func:`join_attentions`."""
    if len(chunks) == 1:
        return chunks[0]
    prompt, answer = chunks
    return BaseModelOutputWithPast(
        last_hidden_state=torch.cat([prompt.last_hidden_state, answer.last_hidden_state], dim=1),
        hidden_states=join_states(prompt.hidden_states, answer.hidden_states),
        attentions=join_attentions(prompt.attentions, answer.attentions, *keys),
    )


def join_states(prompt: tuple | None, answer: tuple | None) -> tuple | None:
    """Hidden states of both chunks, per entry.

    Parameters
    ----------
    prompt, answer : tuple or None
        `[batch, length, channels]` per entry, or None where it was not asked for; None: none was.

    Returns
    -------
    tuple or None
        `[batch, prompt + answer, channels]` each; their lengths fall where tokens of the prompt left.
    """
    if prompt is None or answer is None:
        return None
    return tuple(None if a is None else torch.cat([a, b], dim=1) for a, b in zip(prompt, answer, strict=True))


def join_attentions(
    prompt: tuple | None, answer: tuple | None, prompt_keys: list[torch.Tensor], answer_keys: list[torch.Tensor]
) -> tuple | None:
    """Attention probabilities of both chunks, per layer.

    Parameters
    ----------
    prompt, answer : tuple or None
        `[batch, heads, queries, keys]` per layer; None where none was asked for.
    prompt_keys, answer_keys : list[torch.LongTensor]
        `[batch, keys]` per layer, place of each key in the unreduced sequence, -1 for padding. The answer's are the
        prompt's, without what left the cache, and its own.

    Returns
    -------
    tuple or None
        `[batch, heads, prompt + answer queries, prompt keys + answer]` each: zero where a key comes later, or left
        before the answer.
    """
    if prompt is None or answer is None:
        return None
    # an attention that gives no probabilities leaves no entries
    return tuple(_join_layer(*layer) for layer in zip(prompt, answer, prompt_keys, answer_keys, strict=bool(prompt)))


def _join_layer(prompt: torch.Tensor, answer: torch.Tensor, prompt_keys: torch.Tensor, answer_keys: torch.Tensor):
    new = answer.shape[2]
    held = answer_keys[:, :-new]
    same = held.unsqueeze(-1) == prompt_keys.unsqueeze(1)
    own = torch.arange(prompt_keys.shape[1], prompt_keys.shape[1] + new, device=held.device)
    place = torch.cat([same.int().argmax(-1), own.expand(len(held), -1)], dim=1).to(answer.device)
    shown = answer.masked_fill((answer_keys < 0).to(answer.device)[:, None, None], 0.0)
    rows = answer.new_zeros(*answer.shape[:3], prompt_keys.shape[1] + new)
    rows = rows.scatter_add(-1, place[:, None, None].expand_as(shown), shown)
    return torch.cat([torch.nn.functional.pad(prompt, (0, new)), rows], dim=2)
