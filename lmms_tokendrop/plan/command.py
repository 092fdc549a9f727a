"""The command ``lmms-tokendrop plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from lmms_tokendrop.user_errors import one_line_errors


def plan(
    target: Annotated[
        str,
        typer.Argument(
            help="A configuration: a file, a folder, or llava-1.5-7b, llava-1.5-13b, llava-v1.6-vicuna-7b, "
            "llava-v1.6-vicuna-13b, llava-v1.6-mistral-7b, vilt-b, meter."
        ),
    ],
    model: Annotated[str | None, typer.Option(help="A variant of `list`. Default: the unreduced model.")] = None,
    model_args: Annotated[
        str, typer.Option(help="Options of its method, as for lmms-eval: visual_tokens=320,layers=2+6.")
    ] = "",
    image: Annotated[
        list[str] | None,
        typer.Option(help="Width x height in pixels; once for each image. Default: the model's square."),
    ] = None,
    visual_tokens: Annotated[
        int | None, typer.Option(help="Instead of images: so many in every layer of the unreduced decoder.")
    ] = None,
    text_tokens: Annotated[
        str | None,
        typer.Option(help="Of the prompt, before + behind the images. Default: 35+25; of an encoder's text 32."),
    ] = None,
    new_tokens: Annotated[int, typer.Option(help="That a decoder generates.")] = 32,
    concurrent: Annotated[int, typer.Option(help="Requests whose caches are held at once.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the cache: float16, bfloat16 or float32.")] = "float16",
    memory: Annotated[
        str | None, typer.Option(help="Find the budget with which all caches fit: 500MB, 24GB or 1.5GiB.")
    ] = None,
    speed_up: Annotated[
        float | None,
        typer.Option(help="Find the budget with which MACs of prefill, attention causal, or of an encoder allow it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a variant leaves and costs, without weights: tokens of each layer, MACs, cache, speed-up.

    Such as:

    lmms-tokendrop plan llava-v1.6-vicuna-7b --model llava_next_mustdrop --model-args visual_tokens=320

    lmms-tokendrop plan llava-v1.6-vicuna-7b --model llava_next_visionzip --memory 4GB --concurrent 16

    lmms-tokendrop plan vilt-b --model vilt_pumer --image 640x480 --text-tokens 20
    """
    with one_line_errors(ModuleNotFoundError):
        import torch

        from lmms_tokendrop.plan.arguments import parse_limit, parse_reduction, parse_request
        from lmms_tokendrop.plan.report import Report, planned
        from lmms_tokendrop.plan.targets import read_target

        torch.set_num_threads(1)
        found = read_target(target)
        reduction = parse_reduction(found, model, model_args)
        request = parse_request(image or [], visual_tokens, text_tokens, new_tokens, concurrent, dtype)
        limit = parse_limit(memory, speed_up)
        report: Report = planned(found, reduction, request, limit)
    if as_json:
        typer.echo(report.to_json())
    else:
        report.show()
