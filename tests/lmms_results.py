"""Run lmms-eval on local tasks and read what it returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

COUNTS = ("visual_tokens", "visual_tokens_release", "full_visual_tokens", "kv_bytes", "prompt_tokens", "output_tokens")
"""Costs that a run repeats exactly; seconds are not among them."""


def answers(results: dict, task: str) -> list:
    """Return the answers of a run in the order of the documents."""
    return [sample["filtered_resps"] for sample in sorted(results["samples"][task], key=lambda row: row["doc_id"])]


def counts(results: dict) -> dict[str, float]:
    """Return the mean costs of a run, seconds apart."""
    return {name: results["throughput"][f"avg_{name}"] for name in COUNTS}


def evaluator(folder: Path) -> Callable[..., dict]:
    """Return ``run(model, tasks, **options) -> results`` through lmms-eval itself.

    The options are ``batch_size``, ``limit``, ``gen_kwargs``, ``use_cache`` and model arguments.
    """
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    def run(
        model: str,
        tasks: str | list[str],
        *,
        batch_size: int | str = 1,
        limit: int | None = None,
        gen_kwargs: str = "",
        use_cache: Path | None = None,
        **model_args,
    ) -> dict:
        return simple_evaluate(
            model=model,
            model_args=",".join(f"{name}={value}" for name, value in model_args.items()),
            tasks=[tasks] if isinstance(tasks, str) else tasks,
            task_manager=TaskManager("ERROR", include_path=str(folder), include_defaults=False),
            batch_size=batch_size,
            device="cpu",
            limit=limit,
            gen_kwargs=gen_kwargs,
            use_cache=use_cache and str(use_cache),
            bootstrap_iters=0,
            process_docs_parallel=1,
        )

    return run
