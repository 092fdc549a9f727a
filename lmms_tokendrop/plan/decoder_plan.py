"""What a model that writes its answers leaves and costs: tower, projector, prefill, decoding, cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_tokendrop.benchmark.encoder_accounting import encoder_layer_macs, patch_embedding_macs
from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.evaluation.accounting import decode_macs, decoder_macs, kv_bytes, published_macs
from lmms_tokendrop.plan.narrow_model import QUESTION, SYSTEM_PROMPT, Counts, NarrowModel, Prompt
from lmms_tokendrop.plan.plans import DECODE, PREFILL, Macs, Plan, Request
from lmms_tokendrop.plan.targets import Target

NOISE = (
    "The image is noise, in which no patches are alike; what stays is decided by a narrow model of the same depth with "
    "random weights."
)
ON_DATA = (
    "With these options the picture and the question decide how many tokens stay: the counts are those of noise, and "
    "another picture has others."
)
QUESTIONS = "How well patches fit the question is noise; the text tower that would read it is not counted."
AFTER_TOKENS = "What leaves the cache while the answer is written is not counted."
TOO_LONG = "Prompt and answer have more tokens than the {positions} positions that the model was made for."
EVERY_LAYER = "Every layer has these visual tokens, as papers count them; tower and projector are left out."


def plan_decoder(target: Target, reduction: Mapping[str, Any], request: Request) -> Plan:
    """Plan a decoder.

    Parameters
    ----------
    target
        The model.
    reduction
        Options of its reduction.
    request
        What it is asked.

    Raises
    ------
    ValueError
        If an option is wrong, a budget can't be reached, the prompt ends in an image, or visual tokens are given for a
        method that chooses them.
    """
    config, decoder = target.config(dict(reduction)), target.config().text_config
    before, behind = _lengths(request)
    if request.visual_tokens is not None:
        if config.token_reduction["method"] != UNREDUCED:
            raise ValueError("visual_tokens are those of every layer, for the unreduced model; a method needs images")
        counts, assumed = Counts.constant(request.visual_tokens, decoder.num_hidden_layers), [EVERY_LAYER]
    elif not behind:
        raise ValueError(f"text_tokens: {before}+{behind}; allowed: at least one behind the images")
    else:
        narrow = NarrowModel(target, dict(reduction))
        counts = narrow.counts(prompt_of(config, request))
        assumed = _assumptions(narrow.model.model.token_reducer)
    if counts.full + before + behind + request.new_tokens > decoder.max_position_embeddings:
        assumed.append(TOO_LONG.format(positions=decoder.max_position_embeddings))
    return decoder_plan(config, reduction, counts, before + behind, request, assumed)


def decoder_plan(
    config: Any, given: Mapping[str, Any], counts: Counts, text: int, request: Request, assumed: Sequence[str] = ()
) -> Plan:
    """Put counts into the formulas of a model.

    Parameters
    ----------
    config
        The model's configuration, with the reduction.
    given
        The reduction's options as they were given.
    counts
        Of a narrow model, or the same in every layer.
    text
        Text tokens of the prompt.
    request
        What else counts: generated tokens, requests at once, the cache's dtype.
    assumed
        What the counts rest on.
    """
    decoder = config.text_config
    lengths = [text + tokens for tokens in counts.received]
    prompt = [text + tokens for tokens in counts.cached]
    cached = [length + request.new_tokens for length in prompt]
    macs = {PREFILL: Macs(*(decoder_macs(decoder, lengths, causal) for causal in (False, True)))}
    if counts.tower:
        before = {"vision": tower_macs(config, counts), "projector": projector_macs(config, counts)}
        macs = {**{part: Macs.of(found) for part, found in before.items()}, **macs}
    if request.new_tokens:
        step = (request.new_tokens + 1) / 2
        macs[DECODE] = Macs.of(request.new_tokens * decode_macs(decoder, [length + step for length in prompt]))
    return Plan(
        given=dict(given),
        token_reduction=config.token_reduction,
        visual_tokens=counts.received,
        text_tokens=(text,) * len(lengths),
        average_input=counts.average,
        average_release=counts.released,
        stages=counts.stages,
        macs=macs,
        cached=tuple(cached),
        kv_bytes=kv_bytes(decoder, cached, request.dtype),
        visual_kv_bytes=kv_bytes(decoder, counts.cached, request.dtype),
        kv_bytes_per_token=kv_bytes(decoder, [1] * len(lengths), request.dtype),
        published_macs=published_macs(decoder, lengths),
        concurrent=request.concurrent,
        assumed=tuple(assumed),
    )


def tower_macs(config: Any, counts: Counts) -> int:
    """MACs of the vision tower's blocks that ran, and of the patch embedding."""
    vision = config.vision_config
    patches = counts.tower[0].tiles * (vision.image_size // vision.patch_size) ** 2
    blocks = (block.tiles * encoder_layer_macs(vision, block.attention, block.ffn) for block in counts.tower)
    return patch_embedding_macs(vision, patches) + sum(blocks)


def projector_macs(config: Any, counts: Counts) -> int:
    """MACs of the projector's two layers."""
    layers = config.vision_feature_layer
    read = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
    return counts.projected * config.text_config.hidden_size * (read + config.text_config.hidden_size)


def own_square(config: Any) -> tuple[int, int]:
    """Width and height of the square image of a model: a tile, or where images are cut two by two of them."""
    side = (2 if hasattr(config, "image_grid_pinpoints") else 1) * config.vision_config.image_size
    return side, side


def prompt_of(config: Any, request: Request) -> Prompt:
    """The images and the text of a request, with what is usual where it says nothing."""
    return Prompt(request.images or (own_square(config),), *_lengths(request))


def _lengths(request: Request) -> tuple[int, int]:
    """Text tokens before and behind the images."""
    before = SYSTEM_PROMPT if request.before is None else request.before
    return before, QUESTION if request.behind is None else request.behind


def _assumptions(reducer: Any) -> list[str]:
    """What the counts of a method's narrow model rest on."""
    options = reducer.options
    if options.method == UNREDUCED:
        return []
    budget = getattr(options, "visual_tokens", None) or getattr(options, "keep_ratio", None)
    on_data = type(options).calibrated is not None and budget is None
    later = any(stage.point == "after_token" for stage in reducer.stages_at("decode"))
    said = {ON_DATA: on_data, QUESTIONS: "questions" in reducer.needs, AFTER_TOKENS: later}
    return [NOISE, *(sentence for sentence, holds in said.items() if holds)]
