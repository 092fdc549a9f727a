"""What ``lmms-tokendrop show`` does: load, ask, draw, write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from transformers.utils import logging

from lmms_tokendrop.images import UNREADABLE, to_rgb
from lmms_tokendrop.show.asking import Answer, LoadedVariant
from lmms_tokendrop.show.page import SIZE, heading, lines, page, sheet

PICTURE, PAGE = "tokens.png", "show.html"


def load(model: str, pretrained: str, model_args: str, device: str | None, max_new_tokens: int) -> LoadedVariant:
    """Load a variant, without what libraries print; the arguments are the command's."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    arguments = ",".join(filter(None, (f"pretrained={pretrained}", model_args)))
    with spinning(f"loading {model}"):
        return LoadedVariant(model, arguments, device, max_new_tokens)


def write(loaded: LoadedVariant, image: Path, question: str, out: Path) -> list[str]:
    """Ask, and write the picture and the page into a folder.

    Returns
    -------
    list[str]
        The answers and the files, a line each.
    """
    picture = open_image(image)
    with spinning("asking") as say:
        answers = loaded.answers(picture, question, lambda name: say(f"asking {heading(name)}"))
        say("drawing")
        views = [loaded.views(picture, one, SIZE) if isinstance(one, Answer) else [] for one in answers]
        setting = [("Image", image.name), *loaded.setting()]
        out.mkdir(parents=True, exist_ok=True)
        sheet(question, answers, views).save(out / PICTURE)
        (out / PAGE).write_text(page(question, setting, answers, views), encoding="utf-8")
    return [*lines(question, answers)[1:], str(out / PICTURE), str(out / PAGE)]


def open_image(path: Path) -> Image.Image:
    """Open a picture file; a ValueError names it."""
    try:
        with Image.open(path) as opened:
            return to_rgb(opened)
    except UNREADABLE as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


@contextmanager
def spinning(text: str) -> Iterator:
    """Show what is being done, with the time so far; gives what changes the text."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(text, total=None)
        yield lambda changed: bars.update(bar, description=changed)
