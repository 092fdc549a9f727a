"""The lmms-eval model classes for encoders, which pick answers or rank texts."""

from __future__ import annotations

import json

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from PIL import Image

from lmms_tokendrop.catalogue import TWO_IMAGES
from lmms_tokendrop.evaluation.adapter import TokenDropAdapter, grouped, likelihood_result
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine
from lmms_tokendrop.evaluation.heads import CANDIDATES
from lmms_tokendrop.evaluation.prompts import Prompt, Question, errors_name, has_placeholders
from lmms_tokendrop.evaluation.ranking import Ranker, candidate_texts

PLACEHOLDER = "<image>"
"""Where an image is in the text of a task, as tasks for writing models have it."""


class EncoderTokenDrop(TokenDropAdapter):
    """A reduced encoder that picks its answer from the labels of its head, behind lmms-eval's requests.

    `generate_until` gives the likeliest label, or, with a retrieval head and a task whose `generation_kwargs` name
    `candidates`, the scores of those texts. `loglikelihood`, and with it `multiple_choice`, reads the labels'
    log-probabilities; a candidate that is no label has the probability 0. A question has as many images as the head
    takes: one, or two for NLVR2.
    """

    engine_class = EncoderEngine

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Give the likeliest label for each request; where the task names candidates, a JSON list of their scores."""
        results: dict[int, GenerationResult] = {}
        for numbers in grouped(requests, _asked):
            answer = self._rank_texts if CANDIDATES in requests[numbers[0]].args[1] else self._classify
            results.update(zip(numbers, answer([requests[number] for number in numbers]), strict=True))
        return [results[number] for number in range(len(requests))]

    def _classify(self, requests: list[Instance]) -> list[GenerationResult]:
        results: dict[int, GenerationResult] = {}
        questions = [Question.of(request) for request in requests]
        for number, (answer, cost) in self._in_batches(questions, lambda prompts, _: self.engine.classify(prompts)):
            results[number] = GenerationResult(answer.label, TokenCounts(cost.input_tokens, 1))
            self._count(cost, [requests[number]])
        return [results[number] for number in range(len(requests))]

    def _rank_texts(self, requests: list[Instance]) -> list[GenerationResult]:
        """Score the same candidates for the image of each request."""
        questions = [Question.of(request) for request in requests]
        documents = self.task_dict[questions[0].task][questions[0].split]
        candidates = candidate_texts(documents, requests[0].args[1], max(question.doc_id for question in questions))
        ranker = Ranker(self.engine, candidates, self.batches, questions[0].task)
        results = []
        answers = (ranker.scores(self.prompt(question)) for question in questions)
        for request, (scores, cost) in zip(requests, self._counted(answers, len(questions)), strict=True):
            results.append(GenerationResult(json.dumps(scores), TokenCounts(cost.input_tokens, 1)))
            self._count(cost, [request])
        return results

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Return ``(loss, is_greedy)`` of each candidate answer; the model runs once per question."""
        groups = grouped(requests, Question.of)
        questions = [Question.of(requests[numbers[0]]) for numbers in groups]
        results: dict[int, GenerationResult] = {}
        for place, (answer, cost) in self._in_batches(questions, lambda prompts, _: self.engine.classify(prompts)):
            candidates = self._candidates(questions[place], [requests[number] for number in groups[place]])
            with errors_name(questions[place].source):
                pairs = self.engine.score(answer, candidates)
            for number, (loss, is_greedy) in zip(groups[place], pairs, strict=True):
                results[number] = likelihood_result(loss, is_greedy, cost)
            self._count(cost, [requests[number] for number in groups[place]])
        return [results[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Not possible: a classifier has no conversation."""
        raise NotImplementedError(f"{self.model_id} answers single questions, not conversations")

    def _prompt(self, question: Question, context: str, images: tuple[Image.Image, ...]) -> Prompt:
        """Check the number of images; a placeholder for each of them in the text says nothing here and is left out."""
        if len(images) != self.engine.images:
            fitting = {1: "question_answering or visual_entailment", 2: TWO_IMAGES}
            raise ValueError(
                f"{len(images)} images; the checkpoint's head, {self.engine.head}, takes {self.engine.images}, and the "
                f"head for {len(images)} is {fitting.get(len(images), 'not known')}"
            )
        if has_placeholders(context, PLACEHOLDER, len(images)):
            context = " ".join(context.replace(PLACEHOLDER, " ").split())
        if self.options.square_image:
            images = tuple(self.engine.squared(image) for image in images)
        return Prompt(context, images, question.seed, question.source)


def _asked(request: Instance) -> tuple[str, str, str]:
    """Return what requests that rank the same texts have in common."""
    question = Question.of(request)
    return question.task, question.split, json.dumps(request.args[1], sort_keys=True, default=str)
