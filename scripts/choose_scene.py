"""Choose the scene of the README's picture, and count how often scenes are like it: `choose_scene.py docs/scene.png`.

It is that of the first question of pocket_scenes, in the task's order, that asks for an attribute of one object, that
the full model and MustDrop answer rightly and random dropping wrongly, and of whose object MustDrop's last stage leaves
every patch of the tiles. How often each of this is so among the first questions of that kind is printed. The picture is
made by `lmms-tokendrop show` with the scene and the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from transformers import AutoProcessor

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, cache_of, pocket_path, use_token_reduction
from lmms_tokendrop.modeling.core.token_report import TokenReport
from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.scenes import Scene, render
from lmms_tokendrop.pocket.task_data import task_scenes
from lmms_tokendrop.user_errors import check_output_file, one_line_errors
from lmms_tokendrop.visualize import Cell

METHODS = ("none", "mustdrop", "random")


@dataclass(frozen=True)
class Asked:
    """A question about one object, and what each method made of it.

    Parameters
    ----------
    scene, question
        What was asked.
    answers, reports
        By method.
    """

    scene: Scene
    question: Question
    answers: dict[str, str]
    reports: dict[str, TokenReport]

    def right(self, method: str) -> bool:
        """Whether a method's answer is the right one."""
        return self.answers[method] == self.question.answer

    def left(self, method: str) -> set[Cell]:
        """The patches that the last stage of a method left; newline tokens are none."""
        places = list(self.reports[method].kept.values())[-1][0]
        return {place[1:] for place in places}

    def share(self, method: str) -> float:
        """Share of the object's patches in the tiles that the last stage of a method left."""
        patches = object_patches(self.question)
        return len(patches & self.left(method)) / len(patches)


def object_patches(question: Question) -> set[Cell]:
    """The patches of the tiles that show the object: two by two of a tile's six by six."""
    [(row, column)] = question.cells
    places = [(2 * row + down, 2 * column + right) for down in (0, 1) for right in (0, 1)]
    return {(1 + 2 * (y // 6) + x // 6, y % 6, x % 6) for y, x in places}


def questions_about_one_object() -> Iterator[tuple[int, Scene, Question]]:
    asked = ((scene, question) for scene, questions in task_scenes() for question in questions)
    for number, (scene, question) in enumerate(asked):
        if "_by_" in question.type:
            yield number, scene, question


@torch.inference_mode()
def ask(model, processor, settings: dict[str, dict], scene: Scene, question: Question, seed: int) -> Asked:
    content = [{"type": "image"}, {"type": "text", "text": question.text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[render(scene)], text=[prompt], return_tensors="pt")
    answers, reports = {}, {}
    for method, options in settings.items():
        seeds = torch.tensor([seed])
        with use_token_reduction(model, options):
            out = model.generate(**inputs, sample_seeds=seeds, max_new_tokens=4, return_dict_in_generate=True)
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :]
        answers[method], reports[method] = processor.decode(tokens, skip_special_tokens=True), cache_of(out).report()
    return Asked(scene, question, answers, reports)


def main(
    output: Annotated[Path, typer.Argument(help="Where to write the scene, such as scene.png.")],
    keep_ratio: Annotated[float, typer.Option(help="Share of the visual tokens that an average layer has.")] = 0.25,
    questions: Annotated[int, typer.Option(min=1, help="Questions about one object that are counted.")] = 150,
) -> None:
    """Ask the questions, count, and write the scene of the first that fits."""
    folder = pocket_path("llava_next", "none")
    processor = AutoProcessor.from_pretrained(folder)
    with one_line_errors():
        check_output_file("output", output)
        if output.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"output={str(output)!r}; allowed: a name that ends like a picture's, such as .png")
        model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(folder)
        budget = {"keep_ratio": keep_ratio}
        settings = {method: {"method": method, **({} if method == "none" else budget)} for method in METHODS}
        for options in settings.values():
            model.config.reduction_class.from_dict(options)
    counts: Counter[str] = Counter()
    found = None
    for number, scene, question in islice(questions_about_one_object(), questions):
        asked = ask(model, processor, settings, scene, question, number)
        counts.update(f"{method} answers rightly" for method in METHODS if asked.right(method))
        for method in METHODS[1:]:
            counts[f"{method} leaves half of the object or more"] += asked.share(method) >= 0.5
            counts[f"{method} leaves the whole object"] += asked.share(method) == 1
        shows = asked.right("none") and asked.right("mustdrop") and not asked.right("random")
        if shows and asked.share("mustdrop") == 1:
            counts["like the picture"] += 1
            if found is None:
                found = asked
                typer.echo(f"question {number} of the task: {question.text} {asked.answers}")
    for name, count in sorted(counts.items()):
        typer.echo(f"{name}: {count} of {questions}")
    if found is None:
        raise typer.BadParameter("no question fits; ask more", param_hint="--questions")
    output.parent.mkdir(parents=True, exist_ok=True)
    render(found.scene).save(output)


if __name__ == "__main__":
    typer.run(main)
