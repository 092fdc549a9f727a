"""The model card of the pocket model, rendered from its results file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmms_tokendrop.pocket.scenes import DENSE_OBJECTS
from pocket.curriculum import EASY_VQA_SHARE, INDEPENDENT_SHARE, STAGES
from pocket.llava_next import DECODER_LAYERS, HEADS, PATCH, TOWER_LAYERS, VIEW, WIDTH
from pocket.losses import GUIDED_HEADS, GUIDED_LAYER, PRESENCE_WEIGHT

TEMPLATE = """\
# Pocket LLaVA-NeXT

A small model of the stock class `LlavaNextForConditionalGeneration`, **trained in this project** on generated scenes
and, in {easy_vqa:.0%} of the steps with large pictures, on the training half of the public easy-VQA set. It ships with
the package so that token dropping can be tried and tested without a model hub. Its numbers compare methods on this
model only; they are no reproduction of any published LLaVA-NeXT result.

## Model

- CLIP vision tower with a CLS token: {tower_layers} layers x {width}, {view}-pixel views, {patch}-pixel patches
  ({grid} x {grid} per view); features of the last but one layer.
- Two-layer projector; Llama decoder: {decoder_layers} layers x {width}, {heads} heads; word-level tokenizer.
- Real any-resolution input: pinpoints 48/96 x 48/96. A 96 x 96 picture gives a base view and 2 x 2 tiles:
  180 patches and 12 newlines, 192 visual tokens.
- {parameters:,} parameters, {megabytes} MB in half precision.

## Task

`pocket_scenes`: 96 x 96 scenes of {fewest} to {most} objects on a 6 x 6 grid, each with one of 8 colours, 6 shapes,
3 textures and a digit of 5 x 7 pixels (in the base view 2.5 x 3.5), on 4 textured grounds with distractors.
{questions:,} questions about {images} scenes, one word each: attributes of an object named by other attributes, counts,
existence, neighbours, order, and the ground. Training, validation during training, and the task use separate seeds.

## Training

- {steps:,} steps in {hours} hours on 2 CPU cores that did other work too; `scripts/train_pocket.py`; the log
  is beside the weights.
- Stages (step at which each ends):
{stages}
- About 10 questions behind each picture; in {independent:.0%} of the batches each question sees the picture and itself
  only, in the others the questions form a dialogue. {easy_vqa:.0%} of the steps of the large stages take pictures of
  easy-VQA's training half instead, so its test questions are **in-distribution** for this model.
- Losses beside the answers: colour, shape, texture and digit of every patch, read from the selected tower layer
  (weight as listed); what is present in a view, read from the CLS token of the last tower layer (weight {presence}).
- **Attention guidance**: {guided_heads} of {heads} heads of decoder layer {guided_layer} (counted from 0) are trained,
  with the weight listed, to attend from the position before the answer to the patches of the objects asked
  about. The last stage is not guided. Trials without guidance had not learned to look things up after several hundred
  steps. Guidance favours methods that read text-to-image attention, even though the layers that MustDrop reads by
  default here (0, 1, 3 and 4) are not guided themselves.

## Measured

{questions:,} questions of `pocket_scenes`, stock model in float32, greedy; an answer counts if it is the right word
followed by the end token. Dropped tokens are drawn at random per question before the language model, newlines
included, keep their position numbers, and are hidden from all other tokens; number of draws: {seeds}.

| | accuracy | standard error |
|---|---|---|
{rows}

By question type:

{types}
{easy_vqa_section}
Reproduce with `python scripts/measure_pocket_llava_next.py`; raw numbers in `results/pocket_llava_next.json`.

## Limits

One training run, one seed. It was stopped and resumed three times, each time with fewer steps planned (5,200, 4,000,
3,000, 2,700), so the learning rate fell faster than one cosine; the same command gives a similar model, not the same
weights. The two kinds of relation (`neighbor_color`, `order`) are not or hardly learned; see the table. The vocabulary
holds only the words of these questions and of easy-VQA; other words become `<unk>`. Standard errors treat questions as
independent, though {per_image} share a picture.
"""

ROW_NAMES = {
    "chance": "chance (1 / number of choices)",
    "most_frequent_answer_of_type": "most frequent answer of the question's type",
    "most_frequent_answer_of_question": "most frequent answer to the same question text",
    "blind": "blind (all visual tokens hidden)",
    "full": "full",
    "random_0.5": "random, 50 % kept",
    "random_0.25": "random, 25 % kept",
    "random_0.11": "random, 11 % kept",
}


def _rows(results: dict[str, Any]) -> str:
    lines = []
    for key, name in ROW_NAMES.items():
        if key in results:
            entry = results[key]
            error = f"{entry['standard_error']:.3f}" if "standard_error" in entry else ""
            lines.append(f"| {name} | {entry['accuracy']:.3f} | {error} |")
    return "\n".join(lines)


def _types(by_type: dict[str, dict[str, float]]) -> str:
    columns = [name for name in ("full", "random_0.5", "random_0.25", "random_0.11", "blind") if name in by_type]
    lines = ["| type | questions | " + " | ".join(column.replace("_", " ") for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for kind, count in by_type["questions"].items():
        lines.append(f"| {kind} | {count} | " + " | ".join(f"{by_type[name][kind]:.2f}" for name in columns) + " |")
    return "\n".join(lines)


def _stages(steps: int) -> str:
    lines = []
    for stage in STAGES:
        fewest, most = stage.objects
        end = int(min(stage.until, steps))
        lines.append(
            f"  - until {end:,}: {stage.name}, {16 * stage.cells} pixels, {fewest} to {most} objects,"
            f" {stage.images} pictures per step, patch loss x {stage.auxiliary:g},"
            f" guidance x {stage.guidance:g}"
        )
    return "\n".join(lines)


def _easy_vqa(results: dict[str, Any]) -> str:
    if not results:
        return ""
    return (
        f"\neasy-VQA (public; {results['questions']:,} test questions; its training half is part of the training data):"
        f"\n\n| | accuracy | standard error |\n|---|---|---|\n{_rows(results)}\n"
    )


def write_card(results: dict[str, Any], path: Path) -> None:
    """Render the model card.

    Parameters
    ----------
    results
        Content of `pocket_llava_next.json`.
    path
        Where to write.
    """
    scenes = results["pocket_scenes"]
    text = TEMPLATE.format(
        tower_layers=TOWER_LAYERS,
        decoder_layers=DECODER_LAYERS,
        width=WIDTH,
        heads=HEADS,
        view=VIEW,
        patch=PATCH,
        grid=VIEW // PATCH,
        parameters=results["parameters"],
        megabytes=results["megabytes"],
        fewest=DENSE_OBJECTS[0],
        most=DENSE_OBJECTS[1],
        questions=scenes["questions"],
        images=scenes["images"],
        per_image=scenes["questions"] // scenes["images"],
        steps=results["training"]["steps"],
        hours=results["training"]["hours"],
        stages=_stages(results["training"]["steps"]),
        independent=INDEPENDENT_SHARE,
        easy_vqa=EASY_VQA_SHARE,
        presence=PRESENCE_WEIGHT,
        guided_heads=GUIDED_HEADS,
        guided_layer=GUIDED_LAYER,
        seeds=len(scenes["random_0.11"]["by_seed"]),
        rows=_rows(scenes),
        types=_types(scenes["by_type"]),
        easy_vqa_section=_easy_vqa(results.get("easy_vqa", {})),
    )
    path.write_text(text)
