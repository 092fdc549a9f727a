"""Give random documents to the adapters: the answer alone and in a batch is the same, or one line names the document.

Pictures of every mode from 1 x 1 to 4,000 x 7, texts that are empty, long, in other scripts or with placeholders,
generation options and budgets are drawn with fixed seeds, for the bundled models with every method, for LLaVA-1.5 with
random weights, and for encoders with random weights that read two pictures or rank the texts of all documents. Warnings
that are not expected are faults.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from PIL import Image

from lmms_tokendrop.catalogue import RETRIEVAL, TWO_IMAGES, method, variant, variants
from lmms_tokendrop.catalogue import architecture as family_of
from lmms_tokendrop.evaluation.adapter import TokenDropAdapter
from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.heads import CANDIDATES, HEADS
from lmms_tokendrop.evaluation.processors import load_processor
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.registry import pocket_path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from tiny_models import save_tiny_llava

GROUP = 10
TASK = "random"
LOSS_TOLERANCE = 1e-3
SIZES = ((1, 1), (1, 2), (2, 1), (4000, 7), (7, 4000), (1, 900), (900, 1), (300, 17), (96, 96), (13, 200))
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F")
NO_PICTURES = (b"bytes", None, "picture.png", np.zeros((4, 4, 3), dtype=np.uint8))
WORDS = ("what", "colour", "is", "the", "red", "square", "?", "how", "many", "blue", "rings", "are", "there", "above")
TEXTS = (
    *("", " ", "\n", "?", "<image>", "<image>\nwhat ?", "<image> <image>", "</s>", "[SEP] [MASK]", "<pad> red"),
    *("日本語 のテキスト", "مرحبا", "🙂🙂🙂", "é\u0301\u200d", "\x00\x07", "a" * 300, "USER: red ASSISTANT: blue"),
)
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "llava_next_mustdrop": ({"keep_ratio": 0.5}, {"keep_ratio": 0.11}, {"visual_tokens": 20}),
    "llava_next_random": ({"keep_ratio": 0.3}, {"visual_tokens": 1}),
    "llava_next_vision_tome": ({"vision_r": 5},),
    "llava_mustdrop": ({"keep_ratio": 0.5}, {"visual_tokens": 8}),
    "llava_random": ({"visual_tokens": 1},),
    "vilt_full": ({}, {"head": TWO_IMAGES}, {"head": RETRIEVAL}),
    "vilt_pumer": ({}, {"head": TWO_IMAGES}, {"head": RETRIEVAL}),
    "vilt_tome": ({"r": 9},),
    "vilt_smres": ({"image_size": 48},),
    "meter_full": ({}, {"head": TWO_IMAGES}, {"head": RETRIEVAL}),
    "meter_pumer": ({}, {"head": TWO_IMAGES}, {"head": RETRIEVAL}),
    "meter_tome": ({"r": 9},),
    "meter_vision_tome": ({"vision_r": 5},),
    "meter_smres": ({"image_size": 48},),
}
"""Model arguments to draw from, in place of none; a head stands for a checkpoint of it with random weights."""

CASES = [
    (entry.model_id, options)
    for entry in variants()
    if entry.pocket is not None or not method(entry.method).trained
    if not reductions(entry.architecture).options_of(entry.method).required
    for options in VARIANTS.get(entry.model_id, ({},))
]

OPTIONS = (
    {"max_new_tokens": 3},
    {"max_new_tokens": "2", "until": '["e", "a"]'},
    {"max_gen_toks": 2, "num_beams": 2},
    {"max_new_tokens": 2, "repetition_penalty": 1.2, "min_new_tokens": 2},
    {"max_new_tokens": 0},
    {"num_beams": "0"},
    {"until": "[yes,no]"},
)
REFUSED = re.compile(rf"(generation_kwargs: |{TASK}: document \d+: )[^\n]+")
EXPECTED_WARNING = re.compile(
    rf"{TASK}: (document|candidate) \d+: \d+ tokens; the model has \d+ positions, and .*"
    r"|The channel dimension is ambiguous. Got image shape torch.Size\(\[3, \d+, [13]\]\). "
    r"Assuming channels are the first dimension. .*"
)
"""Texts that are cut off, and narrow pictures, in which transformers 5.19 finds the channels right and warns."""


@dataclass
class Outcome:
    """What random inputs gave: how many answers and refusals, and every fault."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Documents(list):
    """Documents as a data set gives them: by number, and the values of a column by its name."""

    column_names = ("text", "texts", "visuals")

    def __getitem__(self, place: Any) -> Any:
        """Return a document or a column."""
        return [document[place] for document in self] if isinstance(place, str) else super().__getitem__(place)


class Warned(logging.Handler):
    """Keeps what is logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's message."""
        self.messages.append(record.getMessage())


def draw_picture(rng: random.Random) -> Any:
    """Draw a picture of any size and mode; now and then something that is none."""
    if rng.random() < 0.03:
        return rng.choice(NO_PICTURES)
    size = rng.choice(SIZES) if rng.random() < 0.4 else (rng.randint(1, 260), rng.randint(1, 260))
    noise = np.random.default_rng(rng.randrange(2**32))
    mode = rng.choice(MODES)
    if mode in ("I;16", "I", "F"):
        largest = rng.choice((1, 255, 65535) if mode == "F" else (255, 65535))
        values = noise.uniform(0, largest, size[::-1])
        if rng.random() < 0.1:
            values[0, 0] = -1 if mode == "I" else np.nan if mode == "F" else 0
        return Image.fromarray(values.astype({"I;16": "uint16", "I": "int32", "F": "float32"}[mode]))
    colours = Image.fromarray(noise.integers(0, 256, (*size[::-1], 4), dtype=np.uint8))
    if mode in ("La", "PA", "LAB"):
        colours = colours.convert("LA" if mode == "La" else "RGB" if mode == "LAB" else "RGBA")
    if mode == "LAB":
        return Image.merge("LAB", colours.split())
    picture = colours.convert(mode) if mode != "PA" else colours.convert("LA").convert("PA")
    if rng.random() < 0.2:
        picture.getexif()[0x0112] = rng.randint(1, 8)
    return picture


def draw_document(rng: random.Random, images: int) -> dict[str, Any]:
    """Draw a question with about as many pictures as the model takes."""
    number = images if rng.random() < 0.9 else rng.randint(0, 3)
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 12))) if rng.random() < 0.6 else rng.choice(TEXTS)
    if rng.random() < 0.05:
        text = " ".join(rng.choices(WORDS, k=400))
    pictures = [draw_picture(rng) for _ in range(number)]
    single = len(pictures) == 1 and rng.random() < 0.3
    return {"text": text, "texts": [text], "visuals": pictures[0] if single else pictures}


def save_with_head(architecture: str, head: str, folder: Path) -> None:
    """Write a model of the bundled one's size with another head and random weights, large enough that inputs matter."""
    source, family = pocket_path(architecture, "none"), family_of(architecture)
    model_class = family.load(family.model_class(HEADS[head]))
    labels = {"id2label": {0: "red", 1: "yes"}, "label2id": {"red": 0, "yes": 1}}
    torch.manual_seed(0)
    model = model_class(
        model_class.config_class.from_pretrained(source, num_images=2, modality_type_vocab_size=3, **labels)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    load_processor(str(source), model.config).save_pretrained(folder)


def load(model_id: str, options: dict[str, Any]) -> TokenDropAdapter:
    """Load the bundled model, or one of another head or of an architecture that has none.

    Random weights, and encoders, run in float64: they decide what leaves by differences as small as float32's rounding.
    """
    entry = variant(model_id)
    drawn = "head" in options or entry.pocket is None
    with tempfile.TemporaryDirectory() as folder:
        if "head" in options:
            save_with_head(entry.architecture, options["head"], Path(folder))
        elif drawn:
            save_tiny_llava(Path(folder))
        adapter = get_model(model_id)(pretrained=folder if drawn else "pocket", device="cpu", **options)
    if drawn or hasattr(adapter.engine, "head"):
        adapter.engine.model.double()
    adapter.on_answer = lambda done, total: None
    return adapter


def ask(adapter: TokenDropAdapter, numbers: Sequence[int], options: dict[str, Any] | None) -> list[Any]:
    """Answer documents: with generation options an answer or the scores of texts, else the losses of two candidates."""
    documents = adapter.task_dict[TASK]["test"]

    def request(kind: str, number: int, given: Any) -> Instance:
        place = (lambda document: document["visuals"], number, TASK, "test")
        metadata = {"task": TASK, "doc_id": number, "repeats": 1, "split": "test"}
        return Instance(kind, (documents[number]["text"], given, *place), 0, metadata)

    if options is not None:
        results = adapter.generate_until([request("generate_until", number, options) for number in numbers])
        return [json.loads(result.text) if CANDIDATES in options else result.text for result in results]
    pairs = [request("loglikelihood", number, f" {word}") for number in numbers for word in ("red", "yes")]
    return [result.text[0] for result in adapter.loglikelihood(pairs)]


def attempt(answer: Callable[[], list[Any]], expected: re.Pattern, about: str, outcome: Outcome) -> list[Any] | None:
    """Answer, or count a refusal; whatever else is raised or warned of is a fault."""
    handler, root = Warned(), logging.getLogger()
    libraries = [root, logging.getLogger("transformers")]
    for logger in libraries:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return answer()
    except ValueError as error:
        kind = "refused" if expected.fullmatch(str(error)) else "unclear"
        outcome.counts[kind] += 1
        if kind == "unclear":
            outcome.faults.append(f"{about}: {error}")
    except (RuntimeError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError) as error:
        outcome.faults.append(f"{about}: {type(error).__name__}: {error}")
    finally:
        for logger in libraries:
            logger.removeHandler(handler)
        for message in {*handler.messages, *(str(one.message) for one in caught)}:
            if not EXPECTED_WARNING.fullmatch(message):
                outcome.faults.append(f"{about}: warns {message}")
    return None


def same(alone: Any, together: Any) -> bool:
    """Whether two answers are equal, losses and scores up to rounding."""
    return alone == together or (
        not isinstance(alone, str)
        and type(alone) is type(together)
        and np.allclose(alone, together, rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE)
    )


def check_group(number: int, outcome: Outcome, model_id: str, adapter: TokenDropAdapter) -> None:
    """Answer a group of documents one by one and together."""
    rng = random.Random(number)
    head, images = getattr(adapter.engine, "head", None), getattr(adapter.engine, "images", 1)
    adapter.task_dict[TASK] = {"test": Documents(draw_document(rng, images) for _ in range(GROUP))}
    options = rng.choice(OPTIONS) if "llava" in model_id and rng.random() < 0.7 else {"max_new_tokens": 2}
    options = {CANDIDATES: "texts"} if head == RETRIEVAL else None if rng.random() < 0.3 else options
    alone: dict[int, list[Any]] = {}
    for document in range(GROUP):
        about = f"group {number}, {model_id}, document {document}"
        adapter.batches = Batches(1, adapter.device)
        answers = attempt(lambda place=document: ask(adapter, [place], options), REFUSED, about, outcome)
        if answers is not None:
            outcome.counts["answered"] += 1
            alone[document] = answers
    if not alone:
        return
    adapter.batches = Batches(rng.choice((3, 4, GROUP)), adapter.device)
    about = f"group {number}, {model_id}, together"
    answers = attempt(lambda: ask(adapter, list(alone), options), REFUSED, about, outcome)
    together = iter(answers or ())
    for document, expected in alone.items():
        given = [next(together, None) for _ in expected]
        if not all(map(same, expected, given)):
            outcome.faults.append(f"{about}: document {document} gives {given}, alone {expected}")


def check(groups: Sequence[int]) -> Outcome:
    """Check groups of random documents; those of a variant with the same arguments share its model."""
    outcome = Outcome()
    for place, (model_id, options) in enumerate(CASES):
        mine = [number for number in groups if number % len(CASES) == place]
        if mine:
            adapter = load(model_id, options)
            for number in mine:
                check_group(number, outcome, model_id, adapter)
    return outcome


def main(inputs: Annotated[int, typer.Option(help="Number of documents.")] = 2000, first: int = 0) -> None:
    torch.set_num_threads(1)
    outcome = check(range(first, first + inputs // GROUP))
    for fault in outcome.faults:
        typer.echo(" ".join(fault.split())[:400])
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.counts.items()))
    typer.echo(f"{counts}, {len(outcome.faults)} faults")
    raise typer.Exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    typer.run(main)
