"""The command ``lmms-tokendrop bench``."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from lmms_tokendrop.progress import progress_bar
from lmms_tokendrop.user_errors import check_output_file, one_line_errors

DECODERS_ONLY = (
    "architecture",
    "tower",
    "pretrained",
    "budget",
    "counter",
    "images",
    "text_tokens",
    "new_tokens",
    "repeats",
    "attention",
    "published",
)
ENCODERS_ONLY = ("training_steps",)


def bench(
    context: typer.Context,
    shape: Annotated[
        str,
        typer.Option(
            help="Layers and channels of a LLaVA's decoder with random weights, such as 32x512, 8x1024, or 8x4096 (8 "
            "layers as wide as those of 7B models); 'vilt' or 'meter': that encoder at its published size."
        ),
    ] = "8x1024",
    tower: Annotated[str, typer.Option(help="The same of its vision tower; 24x1024 is CLIP ViT-L.")] = "24x1024",
    pretrained: Annotated[
        str | None, typer.Option(help="A checkpoint in place of random weights; 'pocket' is the bundled one.")
    ] = None,
    architecture: Annotated[str, typer.Option(help="llava_next or llava.")] = "llava_next",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas, each with options behind colons if it has some: mustdrop,fastv:K=3. "
            "Default: mustdrop; of encoders variants such as stock, full, pumer-vqav2, default: all."
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="What stays: 1/9, 25%, or a number of tokens.")] = "1/9",
    counter: Annotated[str, typer.Option(help="What the budget counts: 'input' or 'release'.")] = "input",
    parts: Annotated[
        str | None,
        typer.Option(
            help="Of vision, prefill, decode, whole, shares (what scoring and selecting take), throughput, memory. "
            "Default: all but the last two; of encoders throughput, memory, training, default: the first two."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Heights and widths of images; each is a context that is measured. Default: 672x672,336x336; of llava "
            "336x336."
        ),
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Of the prompt, beside the image.")] = 60,
    new_tokens: Annotated[int, typer.Option(help="That are generated.")] = 16,
    repeats: Annotated[int, typer.Option(help="Timed rounds, after one that is not.")] = 7,
    published: Annotated[
        bool, typer.Option("--published", help="Beside MustDrop, in prefill and decode: as its release computes.")
    ] = False,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or 4bit (of decoders).")] = "float32",
    attention: Annotated[
        str, typer.Option(help="Of the reduced model: sdpa, eager, flash_attention_2. Stock models take the fastest.")
    ] = "sdpa",
    threads: Annotated[int | None, typer.Option(help="Of the CPU. Default: torch's choice.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Requests at once. Default: 1; in throughput the best of each model.")
    ] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Largest that throughput tries. Default: none.")] = None,
    max_memory: Annotated[float, typer.Option(help="Share of memory that throughput's batches may take.")] = 0.6,
    seconds: Annotated[float, typer.Option(help="Timed seconds per model in throughput, over all rounds.")] = 30.0,
    window: Annotated[float, typer.Option(help="Timed seconds per model in a round of it.")] = 3.0,
    memory_batch_size: Annotated[
        int | None, typer.Option(help="Batch of memory, and of training. Default: 1; of encoders 8.")
    ] = None,
    training_steps: Annotated[int, typer.Option(help="Optimisation steps that are timed, of encoders.")] = 4,
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing: show what two results files differ in.")
    ] = None,
) -> None:
    """Time variants beside the fastest stock model, in one process and in turn; and their memory, counts and batches.

    In a shell:

    lmms-tokendrop bench --shape 32x512 --tower 24x64 --images 672x672 --parts prefill,decode,shares

    lmms-tokendrop bench --pretrained pocket --methods mustdrop,fastv:K=2 --budget 25% --output speed.json

    lmms-tokendrop bench --shape vilt --methods stock,full,pumer-vqav2

    lmms-tokendrop bench --compare before.json after.json
    """
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    with one_line_errors():
        check_output_file("output", output)
        if compare is not None:
            from lmms_tokendrop.bench.differences import difference_tables

            _refuse(given, given - {"compare"}, "compare measures nothing; give it two files alone")
            _print(difference_tables(*compare))
            return
        from lmms_tokendrop.bench.parts import Batches, decoder_results, encoder_results, set_threads
        from lmms_tokendrop.bench.setting import Setting
        from lmms_tokendrop.bench.tables import result_tables
        from lmms_tokendrop.compare.plan import listed

        set_threads(threads)
        batches = Batches(batch_size, max_batch_size, max_memory, seconds, window, memory_batch_size, training_steps)
        chosen = None if methods is None else listed(methods)
        wanted = None if parts is None else listed(parts)
        with progress_bar() as progress:
            if shape in ("vilt", "meter"):
                _refuse(given, DECODERS_ONLY, f"not with shape={shape!r}, an encoder")
                results = encoder_results(shape, chosen, wanted, batches, device, dtype, progress)
            else:
                _refuse(given, ENCODERS_ONLY, "only with shape='vilt' or 'meter', encoders")
                if pretrained is not None:
                    _refuse(given, ("shape", "tower"), "not with pretrained; a checkpoint has its sizes")
                setting = Setting(
                    architecture=architecture,
                    shape=shape,
                    tower=tower,
                    pretrained=pretrained,
                    budget=budget,
                    counter=counter,
                    images=() if images is None else tuple(listed(images)),
                    text_tokens=text_tokens,
                    new_tokens=new_tokens,
                    batch_size=batch_size or 1,
                    repeats=repeats,
                    device=device,
                    dtype=dtype,
                    attention=attention,
                )
                results = decoder_results(setting, chosen, wanted, published, batches, progress)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    _print(result_tables(results))


def _refuse(given: Collection[str], names: Collection[str], reason: str) -> None:
    """Fail if one of the options was given."""
    for name in sorted(given & set(names)):
        raise ValueError(f"{name}: {reason}")


def _print(tables: list[Any]) -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
