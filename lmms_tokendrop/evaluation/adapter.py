"""What the lmms-eval model classes of all architectures share: arguments, batches, documents, costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from PIL import Image
from tqdm import tqdm

from lmms_tokendrop.catalogue import variant
from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.cost import CostLedger, SampleCost
from lmms_tokendrop.evaluation.loading import load_model, resolve_device
from lmms_tokendrop.evaluation.prompts import Prompt, Question, errors_name, is_padding, load_images
from lmms_tokendrop.images import whole_files

Output = TypeVar("Output")

POOL_BATCHES = 8


class TokenDropAdapter(lmms):
    """A reduced model behind lmms-eval's requests.

    Subclasses set `model_id`, `engine_class`, which runs a batch of prompts, and `_prompt`. Prompts of about equal size
    are answered together; an answer depends neither on its batch nor on the process that gives it.

    Parameters
    ----------
    **model_args
        The reducer's options and those of `lmms_tokendrop.evaluation.arguments.LoadOptions`.

    Attributes
    ----------
    on_answer : callable or None
        Takes the number of questions answered so far and that of all, in place of the progress bar.
    """

    is_simple = True
    model_id: ClassVar[str]
    engine_class: ClassVar[Callable[..., Any]]

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        entry = variant(self.model_id)
        options, reduction = parse_model_args(
            model_args, method=entry.method, pretrained=entry.pretrained, architecture=entry.architecture
        )
        self.options = options
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        if self.world_size > 1 and options.device_map is not None:
            raise ValueError("device_map spreads one process over all devices; start it without accelerate launch")
        chosen = options.device if self.world_size == 1 else None
        self.device = resolve_device(chosen) if chosen is not None else self.accelerator.device
        self.batches = Batches(options.batch_size, self.device, largest=options.max_batch_size)
        self.engine = type(self).engine_class(
            *load_model(entry.architecture, entry.method, options, reduction, self.device)
        )
        self.ledger = CostLedger()
        self.on_answer: Callable[[int, int], None] | None = None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """Build the adapter from the text of ``--model_args`` and lmms-eval's own options.

        Raises
        ------
        ValueError
            If an option is in both.
        """
        own = {name: value for name, value in (additional_config or {}).items() if value is not None}
        args = simple_parse_args_string(arg_string)
        for name in own.keys() & args.keys():
            raise ValueError(f"model_args: {name}={args[name]!r}, and --{name} {own[name]}; allowed: --{name} alone")
        return cls(**args, **own)

    def clean(self) -> None:
        """Log what the run cost and free the model. lmms-eval calls this once, when all requests are answered."""
        self.ledger.log(self.device, first_process=self.rank == 0)
        self.__dict__.pop("engine", None)
        super().clean()

    def prompt(self, question: Question) -> Prompt:
        """Load a question's images and make what the engine takes.

        Raises
        ------
        ValueError
            If something is wrong with the document, which the message names.
        """
        with errors_name(question.source):
            visuals: Any = ()
            if question.doc_to_visual is not None:
                with whole_files():
                    visuals = question.doc_to_visual(self._document(question))
            return self._prompt(question, question.context, load_images(visuals))

    def _prompt(self, question: Question, context: str, images: tuple[Image.Image, ...]) -> Prompt:
        """Make what the engine takes of a question, or of a later round of it."""
        raise NotImplementedError

    def _in_batches(
        self, questions: Sequence[Question], function: Callable[[Sequence[Prompt], Sequence[int]], Sequence[Output]]
    ) -> Iterator[tuple[int, Output]]:
        """Yield the place of each question with what ``function`` made of its prompt, similar sizes together."""
        yield from self._counted(self._in_pools(questions, function), len(questions))

    def _counted(self, answers: Iterable[Output], total: int) -> Iterator[Output]:
        """Yield answers, and show how many of all there are so far, or tell `on_answer`."""
        hidden = self.rank != 0 or self.on_answer is not None
        with tqdm(total=total, disable=hidden, desc=self.model_id) as progress:
            for number, answer in enumerate(answers, 1):
                progress.update()
                if self.on_answer is not None:
                    self.on_answer(number, total)
                yield answer

    def _in_pools(
        self, questions: Sequence[Question], function: Callable[[Sequence[Prompt], Sequence[int]], Sequence[Output]]
    ) -> Iterator[tuple[int, Output]]:
        """Yield the same, uncounted.

        Sizes are compared within pools of `POOL_BATCHES` batches: each image is loaded once, and few are held.
        """
        start = 0
        while start < len(questions):
            end = min(start + (self.batches.size * POOL_BATCHES if self.batches.size > 1 else 1), len(questions))
            yield from self._in_pool(range(start, end), questions, function)
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

    def _candidates(self, question: Question, requests: Sequence[Instance]) -> list[str]:
        """Return the candidate answers to a question; tasks of type loglikelihood give functions instead."""
        with errors_name(question.source):
            given = [request.args[1] for request in requests]
            return [text(self._document(question)) if callable(text) else text for text in given]

    def _count(self, cost: SampleCost, requests: Sequence[Instance]) -> None:
        """Add a sample to the ledger, unless it only repeats one to give every process the same number."""
        if not all(is_padding(request) for request in requests):
            self.ledger.add(cost)


class Likelihood(tuple):
    """The pair of loss and whether the candidate is the greedy answer, as lmms-eval's tasks read it."""

    def strip(self) -> str:
        """Nothing: lmms-eval's cache keeps text only, and leaves out what it finds empty."""
        return ""


def likelihood_result(loss: float, is_greedy: bool, cost: SampleCost) -> GenerationResult:
    """Return what lmms-eval takes for a candidate: it turns a bare pair into text, and leaves one in a result alone."""
    pair: Any = Likelihood((loss, is_greedy))
    return GenerationResult(pair, TokenCounts(cost.input_tokens, 0))


def grouped(requests: Sequence[Instance], key: Callable[[Instance], Hashable]) -> list[list[int]]:
    """Return the numbers of the requests with equal keys, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(key(request), []).append(number)
    return list(groups.values())
