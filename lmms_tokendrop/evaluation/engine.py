"""Answer a batch of prompts with a reduced model, and say what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import ProcessorMixin, StoppingCriteriaList

from lmms_tokendrop.evaluation.cost import SampleCost, sample_costs
from lmms_tokendrop.evaluation.generation import GenerationSettings, answer_length
from lmms_tokendrop.evaluation.prompts import Prompt, collate, continuation_ids, errors_name, warn_of_positions
from lmms_tokendrop.evaluation.reduction import check_reduced
from lmms_tokendrop.evaluation.scoring import CandidateScore, score_candidates
from lmms_tokendrop.evaluation.stopping import AnswerEnds
from lmms_tokendrop.modeling.core.staged_cache import StagedCache
from lmms_tokendrop.modeling.core.token_report import TokenReport
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


class Engine:
    """A model with its processor.

    Parameters
    ----------
    model
        A reduced model in evaluation mode.
    processor
        Its processor, padding on the left.
    """

    def __init__(self, model: Any, processor: ProcessorMixin) -> None:
        self.model = model
        self.processor = processor
        self.reduction = model.config.reduction_of(model.config)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[tuple[str, SampleCost]]:
        """Write an answer to each prompt.

        A prompt's answer is the same in every batch, unless the settings ask for sampling. It ends with the token
        that completes a stop string, and that token is the last that counts; with beams the answer is cut
        afterwards, and the cost includes what follows.
        """
        started = time.perf_counter()
        inputs = self.inputs(prompts)
        prompt_length = inputs["input_ids"].shape[1]
        ends = AnswerEnds(self.processor.tokenizer, settings.until if settings.stops_early else (), prompt_length)
        output = self.model.generate(
            **inputs,
            **settings.options,
            stopping_criteria=StoppingCriteriaList([ends]),
            pad_token_id=self.processor.tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
        new_ids = output.sequences[:, prompt_length:].tolist()
        steps = len(new_ids[0])
        eos_token_id = self.model.generation_config.eos_token_id
        new_ids = [ids[: min(answer_length(ids, eos_token_id), ends.length(row))] for row, ids in enumerate(new_ids)]
        seconds = time.perf_counter() - started
        self._check_positions(prompts, inputs["attention_mask"], list(map(len, new_ids)))
        report = self._checked_report(cache_of(output))
        costs = sample_costs(
            cache_of(output),
            report,
            inputs["attention_mask"].sum(-1).tolist(),
            self.model.config.text_config,
            seconds=seconds,
            output_tokens=[len(ids) for ids in new_ids],
            steps=steps,
        )
        texts = self.processor.batch_decode(new_ids, skip_special_tokens=True)
        return [(settings.cut(text), cost) for text, cost in zip(texts, costs, strict=True)]

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]
    ) -> list[tuple[list[CandidateScore], SampleCost]]:
        """Score the candidate answers of each prompt.

        The prompts are prefilled once, and each candidate is read from a copy of that cache: which visual tokens
        stay does not depend on the candidates.
        """
        started = time.perf_counter()
        candidates = list(map(self._candidate_ids, prompts, continuations))
        inputs = self.inputs(prompts)
        mask = inputs["attention_mask"]
        self._check_positions(prompts, mask, [max(map(len, ids)) for ids in candidates])
        prefilled = self.model(
            **inputs, position_ids=(mask.cumsum(-1) - 1).clamp_min(0), use_cache=True, logits_to_keep=1
        )
        scores = score_candidates(self.model, prefilled, mask, candidates)
        seconds = time.perf_counter() - started
        report = self._checked_report(cache_of(prefilled))
        lengths, config = mask.sum(-1).tolist(), self.model.config.text_config
        costs = sample_costs(cache_of(prefilled), report, lengths, config, seconds=seconds)
        return list(zip(scores, costs, strict=True))

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for a batch of prompts, on its device and in its dtype."""
        device, dtype = self.model.device, self.model.dtype
        inputs = collate(self.processor, prompts)
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }

    def _candidate_ids(self, prompt: Prompt, candidates: Sequence[str]) -> list[list[int]]:
        with errors_name(prompt.source):
            return [continuation_ids(self.processor, prompt.text, text) for text in candidates]

    def _check_positions(self, prompts: Sequence[Prompt], mask: torch.Tensor, answers: Sequence[int]) -> None:
        """Warn of each prompt that has, with its answer, more tokens than the model has positions."""
        limit = self.model.config.text_config.max_position_embeddings
        for prompt, length, answer in zip(prompts, mask.sum(-1).tolist(), answers, strict=True):
            if length + answer > limit:
                warn_of_positions(prompt.source, length + answer, limit, "what is behind them is read all the same")

    def _checked_report(self, cache: StagedCache) -> TokenReport:
        report = cache.report()
        check_reduced(self.reduction, cache, report)
        return report
