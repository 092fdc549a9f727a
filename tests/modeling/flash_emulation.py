"""The kernel functions of the `flash_attn` package in plain torch, for CPU tests of what transformers does around them.

Causal masks are aligned at the bottom right, keys may have fewer heads than queries, and variable-length calls treat
each span of `cu_seqlens` apart, all as the package documents.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType

import torch
import transformers.modeling_flash_attention_utils as glue
from transformers import PreTrainedModel


def attend(query, key, value, causal: bool, scale: float | None) -> torch.Tensor:
    """`[queries, heads, channels]`: attention of one sequence."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("qhc,khc->hqk", query, key) * scale
    if causal:
        ahead = torch.ones(scores.shape[1:], dtype=torch.bool).triu(key.shape[0] - query.shape[0] + 1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return torch.einsum("hqk,khc->qhc", scores.softmax(-1).nan_to_num(0.0), value)


class FlashEmulation:
    """Installs the emulated package through `monkeypatch` and notes the calls.

    Attributes
    ----------
    calls : list[tuple[str, bool]]
        Name of the kernel function, and whether it was causal.
    """

    def __init__(self, monkeypatch):
        self.calls: list[tuple[str, bool]] = []
        package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
        package.flash_attn_func = self.flash_attn_func
        package.flash_attn_varlen_func = self.flash_attn_varlen_func
        package.flash_attn_with_kvcache = self.flash_attn_with_kvcache
        package.bert_padding = padding
        padding.pad_input, padding.unpad_input = pad_input, unpad_input
        monkeypatch.setitem(sys.modules, "flash_attn", package)
        monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
        monkeypatch.setattr(glue, "is_flash_attn_2_available", lambda *args, **kwargs: True)
        version_two = glue.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]
        monkeypatch.setitem(version_two, "general_availability_check", lambda *args, **kwargs: True)
        monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *args, **kwargs: True)
        loaded = ["_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn", "_unpad_fn"]
        loaded += ["_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn", "_loaded_implementation"]
        for name in loaded:
            monkeypatch.setattr(glue, name, None, raising=False)

    def flash_attn_func(
        self, q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, **options
    ):
        """`[batch, length, heads, channels]`."""
        self.calls.append(("dense", causal))
        return torch.stack([attend(*row, causal, softmax_scale) for row in zip(q, k, v, strict=True)])

    def flash_attn_varlen_func(
        self,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
        **options,
    ):
        """`[tokens, heads, channels]` of several sequences, end to end."""
        self.calls.append(("variable", causal))
        ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        assert max_seqlen_q == max(b - a for a, b in pairwise(ends_q))
        assert max_seqlen_k == max(b - a for a, b in pairwise(ends_k))
        parts = [
            attend(q[from_q:to_q], k[from_k:to_k], v[from_k:to_k], causal, softmax_scale)
            for from_q, to_q, from_k, to_k in zip(ends_q[:-1], ends_q[1:], ends_k[:-1], ends_k[1:], strict=True)
        ]
        return torch.cat(parts)

    def flash_attn_with_kvcache(self, *args, **kwargs):
        """Paged caches are not used here."""
        raise AssertionError("a paged kernel was called")


def unpad_input(hidden_states, attention_mask, unused_mask=None):
    """Real tokens end to end, their flat indices, cumulative lengths, the longest, and all lengths."""
    lengths = attention_mask.sum(-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    ends = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden_states.flatten(0, 1)[indices], indices, ends, int(lengths.max()), lengths


def pad_input(hidden_states, indices, batch, seqlen):
    """The inverse of `unpad_input`; padding is zero."""
    padded = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    padded[indices] = hidden_states
    return padded.view(batch, seqlen, *hidden_states.shape[1:])
