"""The lmms-eval model classes for vision-language models that write their answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from PIL import Image

from lmms_tokendrop.catalogue import RETRIEVAL
from lmms_tokendrop.evaluation.adapter import TokenDropAdapter, grouped, likelihood_result
from lmms_tokendrop.evaluation.engine import Engine
from lmms_tokendrop.evaluation.generation import GenerationSettings
from lmms_tokendrop.evaluation.heads import CANDIDATES
from lmms_tokendrop.evaluation.prompts import Prompt, Question, chat_prompt, errors_name, load_images


class GenerativeTokenDrop(TokenDropAdapter):
    """A reduced vision-language model that writes its answers, behind lmms-eval's requests."""

    engine_class = Engine

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Write an answer for each request."""
        results: dict[int, GenerationResult] = {}
        for numbers in grouped(requests, lambda request: json.dumps(request.args[1], sort_keys=True, default=str)):
            if CANDIDATES in requests[numbers[0]].args[1]:
                raise ValueError(
                    f"{requests[numbers[0]].task_name} ranks texts and {self.model_id} writes them; the task needs an "
                    f"encoder with the head {RETRIEVAL}"
                )
            settings = GenerationSettings.from_task(requests[numbers[0]].args[1])
            questions = [Question.of(requests[number]) for number in numbers]

            def answer(prompts: Sequence[Prompt], _: Sequence[int], settings: GenerationSettings = settings) -> list:
                return self.engine.generate(prompts, settings)

            for place, (text, cost) in self._in_batches(questions, answer):
                number = numbers[place]
                results[number] = GenerationResult(text, TokenCounts(cost.input_tokens, int(cost.output_tokens)))
                self._count(cost, [requests[number]])
        return [results[number] for number in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Return ``(loss, is_greedy)`` of each candidate answer.

        All candidates of a document are scored behind one prefill of its prompt.
        """
        groups = grouped(requests, Question.of)
        questions = [Question.of(requests[numbers[0]]) for numbers in groups]
        candidates = [
            self._candidates(question, [requests[number] for number in numbers])
            for question, numbers in zip(questions, groups, strict=True)
        ]

        def score(prompts: Sequence[Prompt], places: Sequence[int]) -> list:
            return self.engine.score(prompts, [candidates[place] for place in places])

        results: dict[int, GenerationResult] = {}
        for place, (scores, cost) in self._in_batches(questions, score):
            for number, fit in zip(groups[place], scores, strict=True):
                results[number] = likelihood_result(fit.loss, fit.is_greedy, cost)
            self._count(cost, [requests[number] for number in groups[place]])
        return [results[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Write one answer per round; the task reads each answer, then asks on or stops."""
        return [self._converse(request) for request in requests]

    def _prompt(self, question: Question, context: str, images: tuple[Image.Image, ...]) -> Prompt:
        """Apply the chat template."""
        text = chat_prompt(self.engine.processor, context, images)
        return Prompt(text, images, question.seed, question.source)

    def _converse(self, request: Instance) -> list[str]:
        question = Question.of(request)
        settings = GenerationSettings.from_task(request.args[1])
        next_round, document = request.args[3], self._document(question)
        prompt = self.prompt(question)
        answers: list[str] = []
        information: Any = None
        while True:
            [(text, cost)] = self.engine.generate([prompt], settings)
            self._count(cost, [request])
            visuals, context, finished, answers, information = next_round(
                document,
                previous_output=[*answers, text],
                round_idx=len(answers) + 1,
                previous_round_info=information,
            )
            if finished:
                return list(answers)
            with errors_name(question.source):
                prompt = self._prompt(question, context, load_images(visuals))
