"""A loaded variant, and what it makes of a question about an image, with its method and with others."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from lmms_eval.utils import simple_parse_args_string
from PIL import Image

from lmms_tokendrop.catalogue import RETRIEVAL, architecture, variant
from lmms_tokendrop.evaluation.arguments import parse_model_args
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine
from lmms_tokendrop.evaluation.engine import Engine
from lmms_tokendrop.evaluation.loading import checkpoint_path, load_model, resolve_device
from lmms_tokendrop.evaluation.processors import load_processor
from lmms_tokendrop.evaluation.prompts import Prompt, chat_prompt
from lmms_tokendrop.images import to_rgb
from lmms_tokendrop.modeling.core.switching import use_token_reduction
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.show.control import random_control
from lmms_tokendrop.show.stages import Layout, StageResult, cell_of, follow, held_shares
from lmms_tokendrop.show.watching import watching
from lmms_tokendrop.visualize import Cell, View, encoder_views, llava_views, patches_of

UNREDUCED: dict[str, Any] = {"method": "none"}


@dataclass(frozen=True)
class Answer:
    """What a model with a method made of a question.

    Parameters
    ----------
    method
        Its name.
    options
        What it ran with.
    text
        The answer.
    alive
        The patches of the image.
    tokens, full
        Image tokens that a layer received on average, and those of the unreduced model.
    seconds
        Time of the request, after one that was not timed.
    stages
        What became of the patches.
    cache
        Share of the cache's layers that hold each patch at the end; None for a model without a cache.
    """

    method: str
    options: dict[str, Any]
    text: str
    alive: list[Cell]
    tokens: float
    full: int
    seconds: float
    stages: list[StageResult]
    cache: dict[Cell, float] | None


@dataclass(frozen=True)
class Run:
    """What one forward pass or generation gave: the answer, its report, its layout and its cache if it has one."""

    text: str
    report: Any
    layout: Layout
    cache: Any = None


class LoadedVariant:
    """A variant's model and processor, for one image at a time.

    Parameters
    ----------
    model_id
        Name of the variant.
    arguments
        As ``--model_args`` of lmms-eval has them, such as ``"pretrained=pocket,keep_ratio=0.25"``.
    device
        Where it runs; None: an accelerator if there is one.
    max_new_tokens
        Longest answer.

    Raises
    ------
    ValueError
        If an argument is wrong, or the checkpoint takes more than one image.
    """

    def __init__(self, model_id: str, arguments: str = "", device: str | None = None, max_new_tokens: int = 32) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}; allowed: 1 or more")
        entry = variant(model_id)
        self.options, reduction = parse_model_args(
            simple_parse_args_string(arguments),
            method=entry.method,
            pretrained=entry.pretrained,
            architecture=entry.architecture,
        )
        self.model_id = model_id
        self.family, self.max_new_tokens = architecture(entry.architecture), max_new_tokens
        self.path = checkpoint_path(entry.architecture, entry.method, self.options.pretrained)
        kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        chosen = resolve_device(self.options.device or device or (kind.type if kind else "cpu"))
        self.model, self.processor = load_model(entry.architecture, entry.method, self.options, reduction, chosen)
        if not self.family.generates and EncoderEngine(self.model, self.processor).images != 1:
            raise ValueError(f"{model_id}: the checkpoint's head takes several images; one is shown")

    @torch.inference_mode()
    def ask(self, image: Image.Image, question: str, token_reduction: dict[str, Any] | None = None) -> Answer:
        """Ask with a method; None: the variant's own.

        Raises
        ------
        ValueError
            If the question is empty, an option is wrong, the weights do not allow the method, or its budget can't be
            met.
        """
        options = self.model.config.token_reduction if token_reduction is None else token_reduction
        if not question.strip():
            raise ValueError("question: it is empty; allowed: a question about the image")
        image = to_rgb(image)
        processor = self._processor(options)
        with use_token_reduction(self.model, options):
            with watching(self.model) as decisions:
                first = self.run(processor, image, question)
            started = time.perf_counter()
            self.run(processor, image, question)
            seconds = time.perf_counter() - started
        stages = follow(decisions, first.layout)
        before = [stage.owner for stage in stages if stage.place in ("vision", "features")]
        entered = before[-1] if before else {cell: cell for cell in first.layout.alive}
        return Answer(
            method=options["method"],
            options=options,
            text=first.text,
            alive=list(first.layout.alive),
            tokens=first.report.average_visual_tokens[0],
            full=first.report.full_visual_tokens[0],
            seconds=seconds,
            stages=stages,
            cache=None if first.cache is None else held_shares(first.cache, entered),
        )

    def answers(
        self, image: Image.Image, question: str, progress: Callable[[str], None] = lambda name: None
    ) -> list[Answer | str]:
        """The answers of the variant, of the unreduced model and of random dropping at as many tokens.

        A method that the weights do not allow has in place of an answer why. Names of methods go to `progress` before
        each is asked.
        """
        own = self.model.config.token_reduction["method"]
        progress(own)
        first = self.ask(image, question)
        controls = {"none": UNREDUCED, "random": random_control(self.model, first.tokens, first.full)}
        if own == "none":
            del controls["random"]
        found: list[Answer | str] = [first]
        for name, options in controls.items():
            if name != own:
                progress(name)
                found.append(self.ask_if_allowed(image, question, options))
        return found

    def setting(self) -> list[tuple[str, str]]:
        """What runs, by name."""
        options = reductions(self.family.name).from_dict(self.model.config.token_reduction).to_dict()
        given = ", ".join(f"{name}={value}" for name, value in options.items() if name != "method")
        found = {"Model": self.model_id, "Checkpoint": self.options.pretrained, "Options": given or "the defaults"}
        return [*found.items(), ("Device", str(self.model.device))]

    def ask_if_allowed(self, image: Image.Image, question: str, token_reduction: dict[str, Any]) -> Answer | str:
        """Ask with another method, or say why the weights do not allow it or its budget can't be met."""
        try:
            return self.ask(image, question, token_reduction)
        except ValueError as error:
            return f"{token_reduction['method']}: {error}"

    def views(self, image: Image.Image, answer: Answer, size: int) -> list[View]:
        """What the model sees of an image."""
        if self.family.generates:
            return llava_views(image, self.model.config, size)
        return encoder_views(image, sorted({(row, column) for _, row, column in answer.alive}), size)

    def run(self, processor: Any, image: Image.Image, question: str) -> Run:
        """Answer with the reducer of the context, from an RGB image."""
        return (self._generated if self.family.generates else self._classified)(processor, image, question)

    def _processor(self, options: dict[str, Any]) -> Any:
        """The processor that goes with a reduction: packing says how many placeholders an image has."""
        references = [self.family.processor_for(one) for one in (options, self.model.config.token_reduction)]
        if references[0] == references[1]:
            return self.processor
        config = copy(self.model.config)
        config.token_reduction = options
        hub = {} if self.options.revision is None else {"revision": self.options.revision}
        processor: Any = load_processor(self.path, config, **hub)
        processor.tokenizer.padding_side = self.family.padding_side
        return processor

    def _generated(self, processor: Any, image: Image.Image, question: str) -> Run:
        prompt = Prompt(chat_prompt(processor, question, [image]), (image,), seed=0)
        inputs = Engine(self.model, processor).inputs([prompt])
        output = self.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=processor.tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
        text = processor.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        cache = cache_of(output)
        shown = (cache.tokens.visual & ~cache.tokens.newline).nonzero().tolist()
        alive = [cell_of(cache.tokens, row, place) for row, place in shown]
        side = self.model.config.vision_config.image_size // self.model.config.vision_config.patch_size
        tiles = range(len(inputs["pixel_values"].flatten(0, -4)))  # of a banner, some have no patch of the image
        cells = [[(tile, place // side, place % side) for place in range(side**2)] for tile in tiles]
        return Run(text.strip(), cache.report(), Layout(cells, alive), cache)

    def _classified(self, processor: Any, image: Image.Image, question: str) -> Run:
        engine = EncoderEngine(self.model, processor)
        if self.options.square_image:
            image = engine.squared(image)
        output = self.model(**engine.inputs([Prompt(question, (image,), seed=0)]))
        [report], scores = self.model.reports(output), output.logits.float()[0]
        score = f"score {scores[0]:.3f}" if engine.head == RETRIEVAL else ""
        text = score or self.model.config.id2label[int(scores.argmax())]
        cells = [(0, row, column) for row, column in patches_of(report)]
        return Run(text, report, Layout([cells], cells))
