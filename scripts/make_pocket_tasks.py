"""Write the data of the pocket_scenes tasks; the same scenes and questions come out every time."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet

from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import QUESTIONS_PER_IMAGE, TASK_IMAGES, task_scenes

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=TASK_FILE)
    options = parser.parse_args()
    write_task(options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
