"""What the answers cost: visual tokens, cache bytes and seconds, summed over samples and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from lmms_eval.models.model_utils.gen_metrics import log_metrics

from lmms_tokendrop.evaluation.accounting import decoder_macs
from lmms_tokendrop.modeling.core.staged_cache import StagedCache
from lmms_tokendrop.modeling.core.token_report import TokenReport


@dataclass(frozen=True)
class SampleCost:
    """The cost of one answered sample. A sum of several samples has the same fields.

    Parameters
    ----------
    prompt_tokens
        Tokens of the prompt before the reduction, padding excluded.
    full_visual_tokens
        Visual tokens of the prompt before the reduction.
    visual_tokens
        Mean over the decoder layers of the visual tokens that a layer receives.
    visual_tokens_release
        The same after each layer's drop, as the MustDrop release counts.
    decoder_macs
        Multiply-accumulates of the decoder's prefill, see `lmms_tokendrop.evaluation.accounting`; 0 for encoders.
    kv_bytes
        Bytes of this sample's share of the cache when its answer ends, padding excluded.
    output_tokens
        Generated tokens, the end token included.
    seconds
        This sample's share of its batch's time, from encoding the images to the answer.
    layers
        Visual tokens that each layer receives.
    """

    prompt_tokens: float = 0.0
    full_visual_tokens: float = 0.0
    visual_tokens: float = 0.0
    visual_tokens_release: float = 0.0
    decoder_macs: float = 0.0
    kv_bytes: float = 0.0
    output_tokens: float = 0.0
    seconds: float = 0.0
    layers: Sequence[float] = ()

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompt after the reduction: the text and the visual tokens of an average layer."""
        return round(self.prompt_tokens - self.full_visual_tokens + self.visual_tokens)


COUNTS = tuple(field.name for field in fields(SampleCost) if field.name not in ("seconds", "layers"))
"""Fields that are one number and the same on every machine."""

_FIELDS = (*COUNTS, "seconds")


def mean_cost(costs: Sequence[SampleCost], *, seconds: float) -> SampleCost:
    """Return the mean cost of several runs of the model for one sample, which took ``seconds`` together."""
    means = {name: sum(getattr(cost, name) for cost in costs) / len(costs) for name in _FIELDS}
    layers = [sum(layer) / len(costs) for layer in zip(*(cost.layers for cost in costs), strict=True)]
    return SampleCost(**{**means, "seconds": seconds}, layers=layers)


def sample_costs(
    cache: StagedCache,
    report: TokenReport,
    prompt_tokens: Sequence[int],
    config: Any,
    *,
    seconds: float,
    output_tokens: Sequence[int] | None = None,
    steps: int = 0,
) -> list[SampleCost]:
    """Split a batch's cost over its samples.

    Parameters
    ----------
    cache, report
        The batch's cache and its report. Several beams or sequences of a sample are added up in bytes.
    prompt_tokens
        Tokens of each unreduced prompt.
    config
        The decoder's configuration.
    seconds
        Time of the whole batch.
    output_tokens
        Generated tokens of each sample up to its end; None if nothing was generated.
    steps
        Generated tokens of the longest sample. What a finished sample gathered in the cache after its end, while it
        waited for the others, isn't its cost.

    Returns
    -------
    list of SampleCost
        One per prompt.
    """
    samples = len(prompt_tokens)
    sequences = len(report.full_visual_tokens) // samples
    outputs = list(output_tokens) if output_tokens is not None else [0] * samples
    costs = []
    for number in range(samples):
        first = number * sequences
        text = prompt_tokens[number] - report.full_visual_tokens[first]
        kv_bytes = sum(report.kv_bytes_per_row[first : first + sequences])
        if sequences == 1 and output_tokens is not None:
            kv_bytes -= (steps - outputs[number]) * _bytes_per_token(cache)
        costs.append(
            SampleCost(
                prompt_tokens=prompt_tokens[number],
                full_visual_tokens=report.full_visual_tokens[first],
                visual_tokens=report.average_visual_tokens[first],
                visual_tokens_release=report.average_visual_tokens_release[first],
                decoder_macs=decoder_macs(
                    config, [text + layer[first] for layer in report.visual_tokens_per_layer], causal=False
                ),
                kv_bytes=kv_bytes,
                output_tokens=outputs[number],
                seconds=seconds / samples,
                layers=[layer[first] for layer in report.visual_tokens_per_layer],
            )
        )
    return costs


def _bytes_per_token(cache: StagedCache) -> int:
    """Bytes that one more token of one sequence takes in all layers."""
    total = 0
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            total += tensor.shape[1] * tensor.shape[3] * tensor.element_size()
    return total


class CostLedger:
    """Sums the costs of the samples that count and reports their means once.

    lmms-eval averages what is logged without weights and never gathers it over processes. So the sums are kept here,
    added up over all processes, and logged by the first one only.

    lmms-eval reports one throughput per run, not per task: with several tasks in a run the means are over the samples
    of all of them. ``avg_speed`` divides the generated tokens by all seconds, those of scoring candidates included.

    Attributes
    ----------
    layers
        Visual tokens that each layer received, means of what was logged last; in the first process.
    """

    def __init__(self) -> None:
        self.layers: list[float] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._sums = torch.zeros(len(_FIELDS), dtype=torch.float64)
        self._layers = torch.zeros(0, dtype=torch.float64)
        self._samples = 0

    def add(self, cost: SampleCost) -> None:
        """Count one sample."""
        self._sums += torch.tensor([getattr(cost, name) for name in _FIELDS], dtype=torch.float64)
        layers = torch.tensor(cost.layers, dtype=torch.float64)
        self._layers = self._layers + layers if self._samples else layers
        self._samples += 1

    def gathered(self, device: torch.device) -> tuple[int, SampleCost]:
        """Return the number of samples and their sum over all processes. Every process must call this."""
        values, layers = torch.cat([self._sums, torch.tensor([self._samples], dtype=torch.float64)]), self._layers
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            values = values.to(device)
            torch.distributed.all_reduce(values)
            parts: list[torch.Tensor] = [layers] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, layers)
            layers = torch.stack([part for part in parts if len(part)] or [layers]).sum(0)
        *sums, samples = values.tolist()
        return int(samples), SampleCost(**dict(zip(_FIELDS, sums, strict=True)), layers=layers.tolist())

    def log(self, device: torch.device, *, first_process: bool) -> None:
        """Hand the means over to lmms-eval (its results' ``throughput``) and start over.

        The names there are ``avg_`` and a field of `SampleCost`; the seconds are summed over processes. ``avg_n`` is
        the number of samples that the means are over: those that this run answered itself. With ``--use_cache`` they
        may be fewer than the task has; each round of a conversation is one.
        """
        samples, total = self.gathered(device)
        self.reset()
        if not samples or not first_process:
            return
        means = {name: getattr(total, name) / samples for name in _FIELDS}
        self.layers = [layer / samples for layer in total.layers]
        log_metrics(
            total_elapsed_time=total.seconds,
            total_gen_tokens=int(total.output_tokens),
            avg_speed=total.output_tokens / total.seconds,
            additional_metrics={**means, "n": samples, "total_requests": samples},
        )
