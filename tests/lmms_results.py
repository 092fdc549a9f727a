"""Read what an lmms-eval run returns."""

COUNTS = ("visual_tokens", "visual_tokens_release", "full_visual_tokens", "kv_bytes", "prompt_tokens", "output_tokens")
"""Costs that a run repeats exactly; seconds are not among them."""


def answers(results: dict, task: str) -> list:
    """Return the answers of a run in the order of the documents."""
    return [sample["filtered_resps"] for sample in sorted(results["samples"][task], key=lambda row: row["doc_id"])]


def counts(results: dict) -> dict[str, float]:
    """Return the mean costs of a run, seconds apart."""
    return {name: results["throughput"][f"avg_{name}"] for name in COUNTS}
