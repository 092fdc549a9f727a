"""The lmms-eval model classes for vision-language models that write their answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm

from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.cost import CostLedger, SampleCost
from lmms_tokendrop.evaluation.engine import Engine
from lmms_tokendrop.evaluation.generation import GenerationSettings
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.evaluation.manifests import variant
from lmms_tokendrop.evaluation.prompts import Prompt, Question, chat_prompt, is_padding, load_images

Output = TypeVar("Output")

POOL_BATCHES = 8


class GenerativeTokenDrop(lmms):
    """A reduced vision-language model behind lmms-eval's requests.

    Subclasses set `model_id`. Prompts of about equal size are answered together and the answers returned in the
    order of the requests; an answer depends neither on its batch nor on the process that gives it.

    Parameters
    ----------
    **model_args
        The reducer's options and those of `lmms_tokendrop.evaluation.arguments.LoadOptions`.
    """

    is_simple = True
    model_id: ClassVar[str]

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        entry = variant(self.model_id)
        options, reduction = parse_model_args(model_args, method=entry.method, pretrained=entry.pretrained)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        if self.world_size > 1 and options.device_map is not None:
            raise ValueError("device_map spreads one process over all devices; start it without accelerate launch")
        chosen = options.device if self.world_size == 1 else None
        self.device = torch.device(chosen) if chosen is not None else self.accelerator.device
        self.engine = Engine(*load_model(entry.architecture, entry.method, options, reduction, self.device))
        self.batches = Batches(options.batch_size, self.device, largest=options.max_batch_size)
        self.ledger = CostLedger()

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Write an answer for each request."""
        results: dict[int, GenerationResult] = {}
        for numbers in _grouped(requests, lambda request: json.dumps(request.args[1], sort_keys=True, default=str)):
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
        groups = _grouped(requests, Question.of)
        questions = [Question.of(requests[numbers[0]]) for numbers in groups]
        candidates = [[self._candidate(requests[number]) for number in numbers] for numbers in groups]

        def score(prompts: Sequence[Prompt], places: Sequence[int]) -> list:
            return self.engine.score(prompts, [candidates[place] for place in places])

        results: dict[int, GenerationResult] = {}
        for place, (scores, cost) in self._in_batches(questions, score):
            for number, fit in zip(groups[place], scores, strict=True):
                # lmms-eval turns a bare tuple into text; inside a GenerationResult it stays what it is.
                pair: Any = (fit.loss, fit.is_greedy)
                results[number] = GenerationResult(pair, TokenCounts(cost.input_tokens, 0))
            self._count(cost, [requests[number] for number in groups[place]])
        return [results[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Write one answer per round; the task reads each answer, then asks on or stops."""
        return [self._converse(request) for request in requests]

    def clean(self) -> None:
        """Log what the run cost and free the model. lmms-eval calls this once, when all requests are answered."""
        self.ledger.log(self.device, first_process=self.rank == 0)
        self.__dict__.pop("engine", None)
        super().clean()

    def prompt(self, question: Question) -> Prompt:
        """Load a question's images and apply the chat template."""
        images: tuple = ()
        if question.doc_to_visual is not None:
            images = load_images(question.doc_to_visual(self._document(question)))
        return Prompt(chat_prompt(self.engine.processor, question.context, images), images, question.seed)

    def _in_batches(
        self, questions: Sequence[Question], function: Callable[[Sequence[Prompt], Sequence[int]], Sequence[Output]]
    ) -> Iterator[tuple[int, Output]]:
        """Yield the place of each question with what ``function`` made of its prompt, similar sizes together.

        Sizes are compared within pools of `POOL_BATCHES` batches: each image is loaded once, and few are held.
        """
        with tqdm(total=len(questions), disable=self.rank != 0, desc=self.model_id) as progress:
            start = 0
            while start < len(questions):
                end = min(start + (self.batches.size * POOL_BATCHES if self.batches.size > 1 else 1), len(questions))
                for answered in self._in_pool(range(start, end), questions, function):
                    progress.update()
                    yield answered
                start = end

    def _in_pool(
        self,
        places: Sequence[int],
        questions: Sequence[Question],
        function: Callable[[Sequence[Prompt], Sequence[int]], Sequence[Output]],
    ) -> Iterator[tuple[int, Output]]:
        """Do the same for some of the questions, whose images are held together."""
        prompts = {place: self.prompt(questions[place]) for place in places}
        by_size = sorted(places, key=lambda place: prompts[place].size_key)

        def run(batch: Sequence[int]) -> Sequence[Output]:
            return function([prompts[place] for place in batch], batch)

        yield from self.batches.run(by_size, run)

    def _document(self, question: Question) -> Any:
        return self.task_dict[question.task][question.split][question.doc_id]

    def _candidate(self, request: Instance) -> str:
        """Return the candidate answer; tasks of type loglikelihood give a function instead."""
        candidate = request.args[1]
        return candidate(self._document(Question.of(request))) if callable(candidate) else candidate

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
            images = load_images(visuals)
            prompt = Prompt(chat_prompt(self.engine.processor, context, images), images, question.seed)

    def _count(self, cost: SampleCost, requests: Sequence[Instance]) -> None:
        """Add a sample to the ledger, unless it only repeats one to give every process the same number."""
        if not all(is_padding(request) for request in requests):
            self.ledger.add(cost)


def _grouped(requests: Sequence[Instance], key: Callable[[Instance], Hashable]) -> list[list[int]]:
    """Return the numbers of the requests with equal keys, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(key(request), []).append(number)
    return list(groups.values())


class LlavaNextFull(GenerativeTokenDrop):
    """LLaVA-NeXT with every visual token, through the same code as the reduced ones."""

    model_id = "llava_next_full"


class LlavaNextMustDrop(GenerativeTokenDrop):
    """LLaVA-NeXT with MustDrop (https://arxiv.org/abs/2411.10803)."""

    model_id = "llava_next_mustdrop"


class LlavaNextRandom(GenerativeTokenDrop):
    """LLaVA-NeXT with visual tokens dropped at random before the language model."""

    model_id = "llava_next_random"
