"""The options of a reduction in a decoder, and the methods that read them."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .budget import Budget
from .reducer_baselines import NoReduction, RandomDrop, UniformDrop
from .reducer_mustdrop import MustDrop
from .reduction_options import ReductionOptions, option

REDUCERS = {"none": NoReduction, "mustdrop": MustDrop, "random": RandomDrop, "uniform": UniformDrop}

FORMAT = 3
"""Number that saved options carry."""

EARLIER_DEFAULTS: dict[int, dict[str, Any]] = {
    1: {"counter": "input", "newlines": "row", "compact_first_layers": True, "text_ratio": 0.0},
    2: {"text_ratio": 0.0},
}
"""Defaults that were others in an earlier format."""

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
COUNT_BUDGETS = frozenset({"visual_tokens", "keep_ratio"})


@dataclass
class TokenReductionConfig(ReductionOptions):
    """Options of a reduction in a decoder. Build it with :meth:`from_dict`, which checks everything.

    The help text of each option is in its field's metadata; the README prints them as a table. A count budget
    (`visual_tokens` or `keep_ratio`), thresholds, and a `preset` exclude each other; with none of them `keep_ratio` is
    1/9, the share that the MustDrop paper calls 320 of 2880 tokens, on the counter of its release.
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
    format: int = option(
        FORMAT,
        "Which budget rule and defaults: 1 is how configurations without this number were saved, before key tokens "
        "stayed under a budget; 2 made no room for the text's choice.",
        low=1,
        high=FORMAT,
    )
    visual_tokens: float | None = option(
        None, "Budget: visual tokens per `scope` and turn, averaged over the decoder layers.", low=1
    )
    keep_ratio: float | None = option(
        None,
        "The same as a share (above 0, at most 1) of the unreduced model's tokens, without newlines where these leave; "
        "default without a budget, preset or thresholds: 1/9.",
        low=1e-9,
        high=1,
    )
    scope: str = option("image", "What a budget is stated for.", allowed=("image", "tile", "request"))
    counter: str | None = option(
        None,
        "What a budget counts: tokens that a layer receives (`input`, the default of a given budget), or those left "
        "after its drop (`release`, the default without one).",
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
    text_ratio: float = option(
        1.0,
        "Where windows merge to meet a budget: places in the later layers, per token that must stay, that this makes "
        "room for and the text decides.",
        low=0,
    )
    layers: list[int] | None = option(
        None, "Decoder layers (zero-based) after which tokens are dropped; default: 2, 6, 10, 14 of 32, scaled."
    )
    newlines: str = option(
        "drop",
        "A newline token stays while a token of its row does (`row`), always (`keep`) or never (`drop`, the release).",
        allowed=("row", "keep", "drop"),
    )
    compact_first_layers: bool = option(
        False, "After prefill layers 0 and 1, too, keep the last stage's survivors only; False: the release."
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
        changed = {entry.name for entry in fields(cls) if entry.name in given and options[entry.name] != entry.default}
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
        if options.get("packing") == "flat" and "newlines" in changed:
            raise ValueError(
                f"token_reduction: newlines={options['newlines']!r} has no meaning with packing='flat', which makes no "
                "newlines; allowed: 'drop'"
            )
        if changed & {"decode_drop_ratio", "decode_floor"} and "decode_interval" not in given:
            raise ValueError("token_reduction: decode_drop_ratio and decode_floor need decode_interval")

    @classmethod
    def earlier_defaults(cls, options: dict) -> dict:
        """Those of the options' format, for what the method reads."""
        earlier = EARLIER_DEFAULTS.get(options.get("format", FORMAT), {})
        without = {"newlines"} if options.get("packing") == "flat" else set()
        read = REDUCERS[options.get("method", "none")].options - without
        return {name: value for name, value in earlier.items() if name in read}

    @classmethod
    def restored(cls, saved: dict | None) -> dict:
        """Options as a configuration file has them; those that were saved without a format have format 1."""
        saved = super().restored(saved)
        reducer = REDUCERS.get(saved.get("method", "none"), NoReduction)
        return {"format": 1, **saved} if "format" in reducer.options else saved

    @classmethod
    def defaults(cls, method: str) -> dict:
        """As :meth:`ReductionOptions.defaults`."""
        return {"method": method, **({"format": FORMAT} if "format" in REDUCERS[method].options else {})}

    @classmethod
    def merged(cls, saved: dict, given: dict) -> dict:
        """As :meth:`ReductionOptions.merged`; a given count budget brings its own counter, too."""
        if given.keys() & COUNT_BUDGETS:
            saved = {name: value for name, value in saved.items() if name != "counter"}
        return super().merged(saved, given)

    def to_dict(self) -> dict:
        """The method, and with one that reduces the format and every option that it reads and that has a value."""
        read = REDUCERS[self.method].options | {"method"} | (set() if self.method == "none" else {"format"})
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name in read}
        return {name: value for name, value in values.items() if value is not None}

    def __post_init__(self) -> None:
        stated = (self.visual_tokens, self.keep_ratio, self.global_threshold, self.individual_threshold)
        without_budget = all(value is None for value in stated)
        if self.counter is None:
            self.counter = "release" if without_budget else "input"
        if without_budget and self.method != "none":
            self.keep_ratio = DEFAULT_KEEP_RATIO

    @property
    def by_threshold(self) -> bool:
        """Whether thresholds decide, not a count budget."""
        return self.global_threshold is not None or self.individual_threshold is not None

    @property
    def protects_key_tokens(self) -> bool:
        """Whether key tokens stay under a count budget; in format 1 they only came first."""
        return self.format > 1

    @property
    def counts_newlines(self) -> bool:
        """Whether newlines are among the tokens that a budget can keep; in format 1 also those that leave at once."""
        return self.newlines != "drop" or self.format == 1

    def budget(self) -> Budget:
        """The count budget."""
        return Budget(self.visual_tokens, self.keep_ratio, self.scope, self.counter)

    def build(self, num_layers: int):
        """The reducer for a decoder of `num_layers` layers."""
        return REDUCERS[self.method](self, num_layers)
