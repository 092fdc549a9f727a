"""The model cards of the pocket encoders, rendered from their results files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.pocket.scenes import DENSE_OBJECTS
from lmms_tokendrop.results.pocket_encoders import encoder_table
from pocket import meter, vilt
from pocket.encoder_curriculum import METER_STAGES, VILT_STAGES
from pocket.encoder_losses import GUIDED_HEADS, LABEL_WISE_WEIGHT
from pocket.experiments import EXPERIMENTS, STEPS
from pocket.meter_training import GUIDED_PAIR
from pocket.stages import Stage
from pocket.vilt_training import GUIDED_LAYER, PATCH_LAYER

TEMPLATE = """\
# {title}

A small {architecture}, **trained in this project** on generated scenes. It ships with the package so that token
reduction can be tried, tested and compared without a model hub. Its numbers compare methods on this model only; they
are no reproduction of any published result.

## Model

{model}
- {parameters:,} parameters, {megabytes} MB in half precision.

## Task

`pocket_scenes`: 96 x 96 scenes of {fewest} to {most} objects on a 6 x 6 grid, each with one of 8 colours, 6 shapes,
3 textures and a digit, on 4 textured grounds with distractors. {questions:,} questions about {images} scenes; the head
picks one of 33 answers. Training, validation during training, fine-tuning and the task use separate seeds.

## Training

- {steps:,} steps in {hours} hours of one CPU core that did other work too; `scripts/train_pocket.py {name}`; the log is
  beside the weights. Last validation, on scenes of its own: {validation:.3f}.
- Stages (step at which each ends):
{stages}
- With several questions per picture each question sees itself and the picture, and the picture sees no question. In the
  last stage there is one question, and everything is as in use.
- Losses: cross entropy over the answers, {label_wise:g} x the label-wise binary cross entropy of the architecture's
  head, and {auxiliary}, weight as listed.
- **Attention guidance**: {guided_heads} of {heads} heads {guided} are trained, with the weight listed, to attend from
  the question's first token to the patches of the objects asked about; the last stage is not guided. Guidance favours
  methods that read the attention of the text.

Fine-tuned rows below start from this model and take {fine_tune} steps of 32 questions with `lmms-tokendrop train`, one
setting for all, {minutes} minutes each on a CPU core that did other work too; "full, trained on" is the unreduced model
after the same steps. Students are distilled from this model unless the row says otherwise.

## Measured

`pocket_scenes` through lmms-eval, float32; ± is the standard error, of differences the paired one. Image tokens: mean
over layers of those that a layer receives, the image's CLS included. MACs as a share of the full model's. Speed-up over
the full model: {speed}.

{tables}
Reproduce with `python scripts/pocket_experiments.py {name} --runs runs/{name}`; raw numbers in
`results/pocket_{name}.json`.

## Limits

One training run, stopped and resumed with a shorter schedule, so the same command gives a similar model, not the same
weights. The vocabulary holds only the words of these questions. Standard errors treat questions as independent, though
{per_image} share a picture.
"""

TITLES = {
    "methods": "Methods",
    "components": "Parts of PuMer",
    "locations": "Where PuMer reduces",
    "ratios": "How much PuMer reduces",
    "curve": "Accuracy against speed",
    "seeds": "Seeds of the fine-tune",
}
"""Headings of the tables."""

MODELS = {
    "vilt": (
        "Pocket ViLT",
        "`ViltForQuestionAnswering` of the stock class",
        f"- {vilt.LAYERS} layers x {vilt.WIDTH}, {vilt.HEADS} heads, {vilt.PATCH}-pixel patches: a picture of "
        f"{vilt.IMAGE_SIZE} pixels has 144 patches and a CLS, as ViLT-B/32 has at 384 pixels.",
        f"colour, shape, texture and digit of every patch, read after layer {PATCH_LAYER} (counted from 0)",
        f"of layer {GUIDED_LAYER}",
        VILT_STAGES,
    ),
    "meter": (
        "Pocket METER",
        "`MeterForQuestionAnswering` of this package",
        f"- {meter.PAIRS} pairs of co-attention layers x {meter.WIDTH}, {meter.HEADS} heads; a CLIP-like tower of "
        f"{meter.VISION_LAYERS} layers (144 patches and a CLS) and a RoBERTa-like one of {meter.TEXT_LAYERS}.",
        "colour, shape, texture and digit of every patch, read from the vision tower's output",
        f"of the text's cross-attention in pair {GUIDED_PAIR} (counted from 0)",
        METER_STAGES,
    ),
}
"""Title, class, description, auxiliary loss, guided place and curriculum by architecture."""


def render_card(architecture: str, results: Path) -> str:
    """Render a model card.

    Parameters
    ----------
    architecture
        Key of `MODELS`.
    results
        Folder of the results files.

    Returns
    -------
    str
        Markdown.
    """
    measured = json.loads((results / f"pocket_{architecture}.json").read_text())
    title, class_name, model, auxiliary, guided, stages = MODELS[architecture]
    training, baselines = measured["model"]["training"], measured["baselines"]
    minutes = [row["training_minutes"] for row in measured["rows"].values() if "training_minutes" in row]
    tables = [
        f"### {TITLES[name]}\n\n{encoder_table(architecture, name)(results)}\n" for name in EXPERIMENTS[architecture]
    ]
    return TEMPLATE.format(
        title=title,
        architecture=class_name,
        name=architecture,
        model=model,
        parameters=measured["model"]["parameters"],
        megabytes=measured["model"]["megabytes"],
        fewest=DENSE_OBJECTS[0],
        most=DENSE_OBJECTS[1],
        questions=baselines["questions"],
        images=baselines["images"],
        per_image=baselines["questions"] // baselines["images"],
        steps=training["steps"],
        hours=training["hours"],
        validation=training["last_validation"],
        stages="\n".join(_stage(stage, training["steps"]) for stage in stages),
        label_wise=LABEL_WISE_WEIGHT,
        auxiliary=auxiliary,
        guided_heads=GUIDED_HEADS,
        heads=vilt.HEADS if architecture == "vilt" else meter.HEADS,
        guided=guided,
        fine_tune=STEPS,
        minutes=f"{min(minutes):.0f} to {max(minutes):.0f}",
        speed=_speed(measured.get("speed")),
        tables="\n".join(tables),
    )


def _speed(conditions: dict[str, Any] | None) -> str:
    if conditions is None:
        return NOT_MEASURED
    return (
        f"batches of {conditions['batch_size']} questions, {conditions['threads']} threads of a\n"
        f"{conditions['machine']}, all rows in turn, median of the ratios within a round"
    )


def _stage(stage: Stage, steps: int) -> str:
    fewest, most = stage.objects
    questions = "one question" if stage.questions == 1 else f"{stage.questions} questions"
    return (
        f"  - until {int(min(stage.until, steps)):,}: {stage.name}, {16 * stage.cells} pixels, {fewest} to {most} "
        f"objects, {stage.images} pictures a step with\n    {questions} each, patch loss x "
        f"{stage.auxiliary:g}, guidance x {stage.guidance:g}"
    )
