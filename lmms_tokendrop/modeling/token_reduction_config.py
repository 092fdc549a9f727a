"""The options of a reduction in a decoder, and the methods that read them."""

from dataclasses import dataclass
from typing import ClassVar

from .budget import Budget
from .reducer_baselines import NoReduction, RandomDrop
from .reducer_mustdrop import MustDrop
from .reduction_options import ReductionOptions, option

REDUCERS = {"none": NoReduction, "mustdrop": MustDrop, "random": RandomDrop}

DEFAULT_KEEP_RATIO = 1 / 9

PRESETS = {
    "textvqa-192": {"global_threshold": 0.001, "individual_threshold": 0.001, "counter": "release"},
    "textvqa-128": {"global_threshold": 0.0012, "individual_threshold": 0.001, "counter": "release"},
    "textvqa-64": {"global_threshold": 0.011, "individual_threshold": 0.01, "counter": "release"},
    "vizwiz-64": {"global_threshold": 0.005, "individual_threshold": 0.001, "counter": "release"},
    "192": {"visual_tokens": 192, "counter": "release"},
    "128": {"visual_tokens": 128, "counter": "release"},
    "64": {"visual_tokens": 64, "counter": "release"},
    "640": {"visual_tokens": 640, "counter": "release"},
    "320": {"visual_tokens": 320, "counter": "release"},
    "160": {"visual_tokens": 160, "counter": "release"},
}
"""Named settings. The first four are the thresholds that the MustDrop release publishes for LLaVA-1.5-7B, tuned so
that the average over one benchmark comes near the number; on other models and benchmarks the average is another one.
The others are the papers' budgets per image: 192/128/64 for LLaVA-1.5 (576 tokens), 640/320/160 for LLaVA-NeXT (2880
tokens, five tiles of 128/64/32)."""


THRESHOLDS = frozenset({"global_threshold", "individual_threshold"})


@dataclass
class TokenReductionConfig(ReductionOptions):
    """Options of a reduction in a decoder. Build it with :meth:`from_dict`, which checks everything.

    The help text of each option is in its field's metadata; the README prints them as a table. A count budget
    (`visual_tokens` or `keep_ratio`), thresholds, and a `preset` exclude each other; with none of them `keep_ratio` is
    1/9, the share that the MustDrop paper calls 320 of 2880 tokens.
    """

    reducers: ClassVar[dict] = REDUCERS
    presets: ClassVar[dict] = PRESETS
    alternatives: ClassVar[tuple] = (
        frozenset({"visual_tokens"}),
        frozenset({"keep_ratio"}),
        frozenset({"preset"}),
        THRESHOLDS,
    )

    method: str = option("none", "The method.", allowed=tuple(REDUCERS))
    visual_tokens: float | None = option(
        None, "Budget: visual tokens per `scope` and turn, averaged over what the decoder layers receive.", low=1
    )
    keep_ratio: float | None = option(
        None, "The same as a share (above 0, at most 1) of what the unreduced model processes.", low=1e-9, high=1
    )
    scope: str = option("image", "What a budget is stated for.", allowed=("image", "tile", "request"))
    counter: str = option(
        "input",
        "What a budget counts: tokens that a layer receives (`input`), or those left after its drop (`release`).",
        allowed=("input", "release"),
    )
    preset: str | None = option(None, "Named thresholds or budget of the papers.", allowed=tuple(PRESETS))
    merge_threshold: float = option(
        0.8, "Windows of at least this mean pairwise cosine similarity merge (above 1: none).", low=-1
    )
    global_threshold: float | None = option(
        None, "Drop only below this share of the attention that all text gives the image.", low=0
    )
    individual_threshold: float | None = option(
        None, "Drop only below this attention from the best single text token.", low=0
    )
    key_ratio: float = option(0.08, "Share of a tile's tokens (after merging) that are key tokens.", low=0, high=1)
    layers: list[int] | None = option(
        None, "Decoder layers (zero-based) after which tokens are dropped; default: 2, 6, 10, 14 of 32, scaled."
    )
    newlines: str = option(
        "row",
        "A newline token stays while a token of its row does (`row`), always (`keep`) or never (`drop`).",
        allowed=("row", "keep", "drop"),
    )
    compact_first_layers: bool = option(
        True, "After prefill all layers keep the last stage's survivors; False: all but layers 0 and 1 (the release)."
    )
    decode_interval: int | None = option(
        None,
        "Every so many generated tokens each layer drops its least attended visual entries; default: never.",
        low=1,
    )
    decode_drop_ratio: float = option(
        0.1, "Share of an image's entries in a layer that then leaves, rounded up.", low=0, high=1
    )
    decode_floor: int = option(1, "Entries per image and layer that stay in any case.", low=1)
    position_mode: str = option(
        "original",
        "`original` rotary positions, or `compact` ones counted over what is left (the release).",
        allowed=("original", "compact"),
    )
    merge_count: str = option(
        "window",
        "Each `window` is decided alone, or all tiles merge the `batch_minimum` number (the release; thresholds only).",
        allowed=("window", "batch_minimum"),
    )
    merge_order: str = option(
        "raster",
        "Merged tokens stay at their place, or come first by `similarity` (the release; needs packing='flat').",
        allowed=("raster", "similarity"),
    )
    packing: str = option(
        "spatial",
        "Tiles are unpadded and get newlines, or are laid end to end (`flat`, the release; prompts need "
        "`FlatLlavaNextProcessor`).",
        allowed=("spatial", "flat"),
    )
    seed: int = option(0, "Seed of random choices; each sample adds its own.", low=0)

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Budgets exclude each other, and options of the release need what it does."""
        given = {key for key, value in options.items() if value is not None}
        chosen = [sorted(given & way) for way in cls.alternatives if given & way]
        if len(chosen) > 1:
            clash = ", ".join(name for way in chosen for name in way)
            raise ValueError(
                f"token_reduction: {clash} exclude each other; give one of visual_tokens, keep_ratio, preset, "
                "or thresholds"
            )
        by_threshold = bool(given & THRESHOLDS) or "global_threshold" in PRESETS.get(options.get("preset"), {})
        if options.get("merge_count") == "batch_minimum" and not by_threshold:
            raise ValueError(
                "token_reduction: merge_count='batch_minimum' needs thresholds; allowed with a budget: 'window'"
            )
        if options.get("merge_order") == "similarity" and options.get("packing") != "flat":
            raise ValueError("token_reduction: merge_order='similarity' needs packing='flat'")
        if options.get("packing") == "flat" and "newlines" in given:
            raise ValueError("token_reduction: newlines has no meaning with packing='flat', which makes no newlines")
        if given & {"decode_drop_ratio", "decode_floor"} and "decode_interval" not in given:
            raise ValueError("token_reduction: decode_drop_ratio and decode_floor need decode_interval")

    def __post_init__(self) -> None:
        stated = (self.visual_tokens, self.keep_ratio, self.global_threshold, self.individual_threshold)
        if self.method != "none" and all(value is None for value in stated):
            self.keep_ratio = DEFAULT_KEEP_RATIO

    @property
    def by_threshold(self) -> bool:
        """Whether thresholds decide, not a count budget."""
        return self.global_threshold is not None or self.individual_threshold is not None

    def budget(self) -> Budget:
        """The count budget."""
        return Budget(self.visual_tokens, self.keep_ratio, self.scope, self.counter)

    def build(self, num_layers: int):
        """The reducer for a decoder of `num_layers` layers."""
        return REDUCERS[self.method](self, num_layers)
