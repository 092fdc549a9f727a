"""A plot of accuracy against visual tokens, from the results files of `lmms-tokendrop demo --output`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmms_tokendrop.evaluation.manifests import variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_plot(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw a panel for each task: a line for each reduced variant, and the unreduced model's level.

    Parameters
    ----------
    tasks
        Title of a panel, and the rows of its results file; the first row is the unreduced model's.

    Returns
    -------
    matplotlib.figure.Figure
        Average visual tokens that a decoder layer receives to the right, accuracy in percent with its standard error
        upwards.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tasks), 3.2), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, (title, (full, *reduced)) in zip(panels, tasks.items(), strict=True):
        panel.axhline(100 * full["accuracy"], color="0.4", linestyle="--", label=f"all {full['visual_tokens']:.0f}")
        for model_id in dict.fromkeys(row["model_id"] for row in reduced):
            rows = sorted((row for row in reduced if row["model_id"] == model_id), key=lambda row: row["visual_tokens"])
            panel.errorbar(
                [row["visual_tokens"] for row in rows],
                [100 * row["accuracy"] for row in rows],
                [100 * row["accuracy_stderr"] for row in rows],
                marker="o",
                markersize=4,
                capsize=2,
                label=variant(model_id).method,
            )
        panel.set(title=f"{title}, {full['samples']} questions", xlabel="visual tokens, mean over layers", xlim=0)
        panel.legend(frameon=False)
    panels[0].set_ylabel("accuracy, %")
    return figure
