"""The commands ``lmms-tokendrop export``, ``verify``, ``card`` and ``push``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lmms_tokendrop.user_errors import one_line_errors

app = typer.Typer()


@app.command(epilog="Example: lmms-tokendrop export llava_next_mustdrop mustdrop --base pocket")
def export(
    variant: Annotated[str, typer.Argument(help="A name of lmms-tokendrop list.")],
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: Hub repository, folder, or 'pocket'. Default: the variant's checkpoint."),
    ] = None,
    form: Annotated[
        str, typer.Option(help="'config': weights stay in the base's repository; 'full': with weights.")
    ] = "config",
    token_reduction: Annotated[
        str | None, typer.Option(help="Options of the method as JSON, such as '{\"keep_ratio\": 0.25}'.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the weights, if the base is a folder.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest weights file.")] = "5GB",
    check: Annotated[
        str, typer.Option(help="'weights', or 'meta' if they can't be fetched; such a folder can't be pushed.")
    ] = "weights",
) -> None:
    """Write a variant as a Hub repository that loads with trust_remote_code and without this package."""
    from lmms_tokendrop.hub.export import export as write
    from lmms_tokendrop.hub.self_check import SelfCheckError

    with one_line_errors(SelfCheckError), Console(stderr=True).status(f"writing {folder} and checking it"):
        manifest = write(
            variant,
            folder,
            base=base,
            form=form,
            token_reduction=_parse(token_reduction),
            license=license,
            max_shard_size=max_shard_size,
            check=check,
        )
    where = f"at {manifest.base_revision}" if manifest.base_revision else "bundled" if manifest.bundled else "a folder"
    typer.echo(
        f"{folder}: {manifest.variant}, form {manifest.form}, base {manifest.base_model} ({where}), "
        f"licence {manifest.license or 'unknown'}"
    )
    typer.echo(f"self-check in a fresh interpreter: passed ({manifest.self_check})")


@app.command(epilog="Example: lmms-tokendrop verify mustdrop")
def verify(
    folder: Annotated[Path, typer.Argument(help="Made by lmms-tokendrop export.")],
    check: Annotated[
        str, typer.Option(help="'weights', or 'meta': names and shapes of parameters, without fetching weights.")
    ] = "weights",
) -> None:
    """Check an exported folder, a line per check; nothing is written. The first that fails ends it with status 1."""
    from lmms_tokendrop.hub.self_check import SelfCheckError
    from lmms_tokendrop.hub.verifying import folder_checks

    with one_line_errors(SelfCheckError), Console(stderr=True).status(f"checking {folder}"):
        for line in folder_checks(folder, check):
            typer.echo(line)


@app.command(epilog="Example: lmms-tokendrop card mustdrop OWNER/NAME --results results")
def card(
    folder: Annotated[Path, typer.Argument(help="Made by lmms-tokendrop export.")],
    repo_id: Annotated[str, typer.Argument(help="Repository that it will be pushed to, owner/name.")],
    results: Annotated[
        Path | None,
        typer.Option(help="Folder with results of lmms-eval and of the benchmarks."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name of this version, if push gets one.")] = None,
    base: Annotated[
        Path | None, typer.Option(help="The base if it is a folder, for its results to count; else they do not.")
    ] = None,
) -> None:
    """Write the folder's model card from its record and from results files; what they lack is "not measured"."""
    from lmms_tokendrop.hub.card import folder_card
    from lmms_tokendrop.hub.folder import CARD

    with one_line_errors(), Console(stderr=True).status("reading results"):
        if results is not None and not results.is_dir():
            raise ValueError(f"--results {results} is no folder")
        made, left_out = folder_card(folder, repo_id, results, tag=tag, base=base)
        made.save(folder / CARD)
    for path, reason in left_out.items():
        typer.echo(f"left out {path}: {reason}")
    measured = len(made.data.eval_results or ())
    typer.echo(f"{folder / CARD}: {measured} results of lmms-eval belong to this model")


@app.command(epilog="Example: lmms-tokendrop push mustdrop OWNER/NAME --yes")
def push(
    folder: Annotated[Path, typer.Argument(help="Made by lmms-tokendrop export.")],
    repo_id: Annotated[str, typer.Argument(help="Repository, owner/name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Push. Without it nothing is changed.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    tag: Annotated[str | None, typer.Option(help="Name of this version; default: v and the package's version.")] = None,
    redistribute: Annotated[
        bool, typer.Option("--redistribute", help="The licence of the weights lets you pass them on.")
    ] = False,
) -> None:
    """Show what pushing a folder to the Hub would change; with --yes, do it in one commit."""
    from lmms_tokendrop.hub.push import PushError, plan
    from lmms_tokendrop.hub.push import push as send

    with one_line_errors(PushError), Console(stderr=True).status(f"asking the Hub about {repo_id}") as status:
        found = plan(folder, repo_id, tag=tag, redistribute=redistribute)
        table = Table("change", "file", "bytes")
        for change in ("added", "changed", "removed"):
            for name, size in getattr(found, change).items():
                table.add_row(change, name, f"{size:,}")
        if found.different:
            Console().print(table)
        if not found.different and found.tagged:
            typer.echo(f"{repo_id} has all of this as {found.tag}; nothing to do")
        elif not yes:
            new = "" if found.head else f"new {'public' if public else 'private'} repository, "
            typer.echo(f"dry run: {new}tag {found.tag}; --yes pushes to {repo_id}")
        else:
            status.update(f"pushing to {repo_id}")
            send(folder, found, private=not public)
            typer.echo(f"pushed to {repo_id}, tag {found.tag}")


def _parse(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--token-reduction {text!r} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"--token-reduction {text!r}; allowed: a JSON object")
    return options
