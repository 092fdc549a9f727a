"""The command ``lmms-tokendrop show``."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lmms_tokendrop.catalogue import POCKET
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors


def show(
    image: Annotated[Path | None, typer.Argument(help="Any picture file.")] = None,
    question: Annotated[str | None, typer.Argument(help="What to ask about it.")] = None,
    model: Annotated[str, typer.Option(help="A name of lmms-tokendrop list.")] = "llava_next_mustdrop",
    pretrained: Annotated[str, typer.Option(help="Checkpoint; 'pocket' is the bundled one.")] = POCKET,
    model_args: Annotated[str, typer.Option(help="More options, as for lmms-eval: keep_ratio=0.25.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 32,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Default: an accelerator if any.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of tokens.png and show.html.")] = Path("out/show"),
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Instead, a page on this machine for any image, question, method and budget."),
    ] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of --serve. Default: one from 7860 on.")] = None,
) -> None:
    """Draw which tokens of a picture a method keeps, merges and drops, beside the answers with and without it."""
    with one_line_errors(ModuleNotFoundError):
        check_output_folder("out", out)
        if serve and (image or question):
            raise ValueError("--serve asks for IMAGE and QUESTION in the page; leave them out")
        if serve and find_spec("gradio") is None:
            raise ModuleNotFoundError("--serve needs gradio: pip install 'lmms-tokendrop[demo]', or pip install gradio")
        if not serve and (image is None or question is None):
            raise ValueError("IMAGE and QUESTION are missing; example: lmms-tokendrop show picture.jpg 'what is it?'")
        if pretrained.startswith(POCKET) or Path(pretrained).exists():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from lmms_tokendrop.show.running import load, write

        loaded = load(model, pretrained, model_args, device, max_new_tokens)
        if serve:
            from lmms_tokendrop.show.serving import serve_until_interrupted

            serve_until_interrupted(loaded, port, typer.echo)
        elif image is not None and question is not None:
            for line in write(loaded, image, question, out):
                typer.echo(line)
