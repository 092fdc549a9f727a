"""The model cards of the pocket encoders, rendered from their results files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.pocket.scenes import DENSE_OBJECTS
from lmms_tokendrop.results.pocket_encoders import encoder_table, loss_rows, type_rows
from pocket import meter, vilt
from pocket.encoder_curriculum import METER_STAGES, VILT_STAGES
from pocket.encoder_losses import GUIDED_HEADS, LABEL_WISE_WEIGHT
from pocket.experiments import EXPERIMENTS
from pocket.meter_training import GUIDED_PAIRS
from pocket.recipes import HEAD_RATE, STUDENT_RATE
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
picks one of 33 answers. Training, validation during training and the task use separate seeds.

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

Fine-tuned rows below start from this model and go on with its own losses on answers and patches, 32 questions a step;
1,000 steps took {minutes} minutes of a CPU core that did other work too. The highest learning rate is {rate:g},
{head_rate:g} times that for heads and what a method adds. Students learn the divergence from this model's
probabilities too, unless the row says otherwise; "full, trained on" is the unreduced model after the same steps without
it.
{patches}
From step {met:,} on, fine-tunes with seed 0 meet scenes that this model was trained on; those with other seeds do not.

## Measured

`pocket_scenes` through lmms-eval, float32; ± is the standard error, of differences to full the paired one. Image
tokens: mean over layers of those that a layer receives, the image's CLS included. MACs as a share of the full model's.
Speed-up over the full model: {speed}.

{tables}
Reproduce with `python scripts/pocket_experiments.py {name} --runs runs/{name}`, and the speed-ups, on a machine that
does nothing else, with `--speed 2 --threads 2` behind it; raw numbers in `results/pocket_{name}.json`.

## Limits

{run},
so the same command gives a similar model, not the same weights. The vocabulary holds only the words of these
questions. Standard errors treat questions as independent, though {per_image} share a picture.
"""

TITLES = {
    "methods": "Methods",
    "components": "Parts of PuMer",
    "locations": "Where PuMer reduces",
    "ratios": "How much PuMer reduces",
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
        "Patches are read before the first tokens leave; where that is the first layer (ToMe), or the picture is\n"
        "smaller, there is no loss on them.",
        "One training run of the unreduced model, stopped and resumed with a shorter schedule",
    ),
    "meter": (
        "Pocket METER",
        "`MeterForQuestionAnswering` of this package",
        f"- {meter.PAIRS} pairs of co-attention layers x {meter.WIDTH}, {meter.HEADS} heads; a CLIP-like tower of "
        f"{meter.VISION_LAYERS} layers (144 patches and a CLS) and a RoBERTa-like one of {meter.TEXT_LAYERS}.",
        "colour, shape, texture and digit of every patch, read from the vision tower's output",
        f"of the text's cross-attention in pairs {GUIDED_PAIRS[0]} to {GUIDED_PAIRS[-1]} (counted from 0)",
        METER_STAGES,
        "Of smaller pictures there is no loss on patches.",
        "One training run of the unreduced model",
    ),
}
"""Title, class, description, auxiliary loss, guided place, curriculum, where students read patches and training run."""


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
    title, class_name, model, auxiliary, guided, stages, patches, run = MODELS[architecture]
    training, baselines = measured["model"]["training"], measured["baselines"]
    trained = [row for row in measured["rows"].values() if row["trained_steps"]]
    minutes = [1000 * row["training_minutes"] / row["trained_steps"] for row in trained]
    tables = [
        f"### {TITLES[name]}\n\n{encoder_table(architecture, name)(results)}\n" for name in EXPERIMENTS[architecture]
    ]
    tables += [
        f"### PuMer's loss by seed\n\nThe error of the mean is that of the seeds.\n\n{loss_rows(measured)}\n",
        f"### Accuracy by type of question\n\nErrors as if questions were not paired.\n\n{type_rows(measured)}\n",
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
        patches=patches,
        met=next(int(before.until) for before, stage in pairwise(stages) if stage.objects == DENSE_OBJECTS),
        run=run,
        rate=STUDENT_RATE,
        head_rate=HEAD_RATE,
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
