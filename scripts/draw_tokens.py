"""Draw one question of pocket_scenes with what MustDrop and random dropping leave of its picture, for the README.

The question is the first, in the task's order, that asks for an attribute of one object, that the full model and
MustDrop answer rightly and random dropping wrongly, and of whose object MustDrop's last stage leaves every patch of the
tiles. How often each of this is so among the first questions of that kind is printed.
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
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoProcessor

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, cache_of, pocket_path
from lmms_tokendrop.modeling.core.token_report import TokenReport
from lmms_tokendrop.pocket.questions import Question
from lmms_tokendrop.pocket.scenes import Scene, render
from lmms_tokendrop.pocket.task_data import task_scenes
from lmms_tokendrop.user_errors import check_output_file, one_line_errors
from lmms_tokendrop.visualize import CAPTION, GAP, INK, Cell, draw_columns

METHODS = ("none", "mustdrop", "random")
SIZE = 288
HEADLINE = 40
MARK = (230, 0, 60)


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
def ask(models: dict, processor, scene: Scene, question: Question, seed: int) -> Asked:
    content = [{"type": "image"}, {"type": "text", "text": question.text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[render(scene)], text=[prompt], return_tensors="pt")
    answers, reports = {}, {}
    for method, model in models.items():
        seeds = torch.tensor([seed])
        out = model.generate(**inputs, sample_seeds=seeds, max_new_tokens=4, return_dict_in_generate=True)
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :]
        answers[method], reports[method] = processor.decode(tokens, skip_special_tokens=True), cache_of(out).report()
    return Asked(scene, question, answers, reports)


def draw(asked: Asked, config) -> Image.Image:
    """The question, and for each method its answer over what it left; the object is framed."""
    reports = asked.reports
    averages = {method: f"{reports[method].average_visual_tokens[0]:.0f} tokens in a layer" for method in METHODS}
    averages["mustdrop"] += f", {len(asked.left('mustdrop'))} after the last drop"
    names = {"none": "all tokens", "mustdrop": "MustDrop", "random": "random dropping"}
    left = {"none": None, "mustdrop": asked.left("mustdrop"), "random": asked.left("random")}
    columns = {f"{names[method]}: {asked.answers[method]}\n{averages[method]}": left[method] for method in METHODS}
    views = draw_columns(render(asked.scene), columns, config, SIZE)
    picture = Image.new("RGB", (views.width, views.height + HEADLINE), "white")
    picture.paste(views, (0, HEADLINE))
    pen = ImageDraw.Draw(picture)
    pen.text((0, 8), asked.question.text, fill=INK, font=ImageFont.load_default(20))
    [(row, column)] = asked.question.cells
    step = SIZE / asked.scene.cells
    top = HEADLINE + CAPTION + row * step
    for number in range(len(columns)):
        edge = number * (SIZE + GAP) + column * step
        pen.rectangle((edge, top, edge + step, top + step), outline=MARK, width=3)
    return picture


def main(
    output: Annotated[Path, typer.Argument(help="Picture to write, such as tokens.png.")],
    keep_ratio: Annotated[float, typer.Option(help="Share of the visual tokens that an average layer has.")] = 0.25,
    questions: Annotated[int, typer.Option(min=1, help="Questions about one object that are counted.")] = 150,
) -> None:
    """Ask the questions, count, and draw the first that fits."""
    folder = pocket_path("llava_next", "none")
    processor = AutoProcessor.from_pretrained(folder)
    with one_line_errors():
        check_output_file("output", output)
        if output.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"output={str(output)!r}; allowed: a name that ends like a picture's, such as .png")
        models = {
            method: LlavaNextTokenDropForConditionalGeneration.from_pretrained(
                folder, token_reduction={"method": method, **({} if method == "none" else {"keep_ratio": keep_ratio})}
            )
            for method in METHODS
        }
    counts: Counter[str] = Counter()
    found = None
    for number, scene, question in islice(questions_about_one_object(), questions):
        asked = ask(models, processor, scene, question, number)
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
    draw(found, models["none"].config).save(output)


if __name__ == "__main__":
    typer.run(main)
