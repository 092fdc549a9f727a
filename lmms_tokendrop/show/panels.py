"""What is drawn of an answer: a panel for each stage, for its scores, and for the cache, each with words for it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from lmms_tokendrop.show.asking import Answer
from lmms_tokendrop.show.stages import StageResult
from lmms_tokendrop.visualize import Panel


@dataclass(frozen=True)
class Described:
    """A panel, and what it shows in words.

    Parameters
    ----------
    panel
        What is drawn.
    words
        For those who don't see it.
    """

    panel: Panel
    words: str


def stage_panels(answer: Answer) -> list[Described]:
    """The whole image, what each stage left of it, and what the cache holds at the end."""
    full = len(answer.alive)
    whole = Described(Panel(f"input\n{full} patches"), f"The image as the model sees it, {full} patches.")
    stages = [_stage(stage, full) for stage in answer.stages]
    if answer.cache is None or not answer.stages:
        return [whole, *stages]
    average = sum(answer.cache.values()) / full
    caption = f"cache at the end\na patch is in {average:.0%} of layers"
    none = full - len(answer.cache)
    words = f"The cache after the answer: a patch is in {average:.0%} of layers on average, {none} are in none."
    owner = {cell: cell for cell in answer.cache}
    return [whole, *stages, Described(Panel(caption, owner, share=answer.cache), words)]


def _stage(stage: StageResult, full: int) -> Described:
    keys = len({stage.owner[cell] for cell in stage.keys})
    merged = len(stage.owner) - stage.patches
    count = f"{stage.patches} of {full} patches"
    details = [f"{keys} of them key tokens"] * bool(keys) + [f"{merged} merged into these"] * bool(merged)
    panel = Panel(f"{stage.name}\n{count}" + f", {keys} key" * bool(keys), stage.owner, stage.keys)
    return Described(panel, f"After the stage {stage.name}: {', '.join([count, *details])}, the others left.")


def score_panels(answer: Answer) -> list[Described]:
    """By what the stages that judge patches judged them, from dark for the lowest to bright for the highest."""
    found = []
    for stage in answer.stages:
        if stage.ranks:
            cells = {cell: cell for cell in stage.ranks}
            panel = Panel(f"{stage.name}\nscores, bright is high", cells, heat=stage.ranks)
            stay = [rank for cell, rank in stage.ranks.items() if cell in stage.owner]
            rank = f"the mean rank of what stays is {mean(stay):.0%}" if stay else "none of them stays"
            found.append(Described(panel, f"Scores of {len(cells)} patches at {stage.name}; {rank}."))
    return found


def last_panel(answer: Answer, name: str) -> Described:
    """What the last stage of a method left."""
    full = len(answer.alive)
    left = answer.stages[-1].patches
    panel = Panel(f"{name}\n{left} of {full} patches", answer.stages[-1].owner)
    return Described(panel, f"What {name} leaves: {left} of {full} patches.")
