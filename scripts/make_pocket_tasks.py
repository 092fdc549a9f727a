"""Write the data of the pocket_scenes tasks; the same scenes and questions come out every time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import datasets
import pyarrow
import pyarrow.parquet
import typer

from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import QUESTIONS_PER_IMAGE, TASK_IMAGES, task_scenes
from lmms_tokendrop.user_errors import check_output_file, one_line_errors

TASK_FILE = Path(__file__).resolve().parents[1] / "tasks" / "pocket_scenes" / "pocket_scenes.parquet"
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "image_id": datasets.Value("int32"),
        "type": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "choices": datasets.List(datasets.Value("string")),
    }
)


def task_rows(images: int, questions: int) -> list[dict]:
    """Lay the task out as one row per question.

    Parameters
    ----------
    images, questions
        Number of scenes, and of questions about each.

    Returns
    -------
    list of dict
    """
    rows = []
    for number, (scene, asked) in enumerate(task_scenes(images, questions)):
        buffer = io.BytesIO()
        render(scene).save(buffer, format="PNG", optimize=True)
        picture = {"bytes": buffer.getvalue(), "path": None}
        rows += [
            {
                "image": picture,
                "image_id": number,
                "type": question.type,
                "question": question.text,
                "answer": question.answer,
                "choices": list(question.choices),
            }
            for question in asked
        ]
    return rows


def write_task(path: Path, images: int = TASK_IMAGES, questions: int = QUESTIONS_PER_IMAGE) -> None:
    """Write the parquet file; each picture is stored once, by dictionary encoding.

    Parameters
    ----------
    path
        Where to write.
    images, questions
        Number of scenes, and of questions about each.
    """
    table = pyarrow.Table.from_pylist(task_rows(images, questions), schema=FEATURES.arrow_schema)
    pyarrow.parquet.write_table(
        table, path, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=64 * 1024 * 1024
    )


def main(output: Annotated[Path, typer.Option(help="Parquet file to write.")] = TASK_FILE) -> None:
    """Write the data of the pocket_scenes tasks."""
    with one_line_errors():
        check_output_file("output", output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_task(output)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
