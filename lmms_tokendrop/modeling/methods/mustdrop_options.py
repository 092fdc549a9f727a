"""The options of MustDrop, and the settings that its paper and its release publish."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.decoder_options import BudgetOptions, NewlineOptions, PackingOptions, PositionOptions
from ..core.drop_layers import layers_option
from ..core.options import option

PRESETS: dict[str, dict] = {
    "textvqa-192": {"global_threshold": 0.001, "individual_threshold": 0.001, "counter": "release"},
    "textvqa-128": {"global_threshold": 0.0012, "individual_threshold": 0.001, "counter": "release"},
    "textvqa-64": {"global_threshold": 0.011, "individual_threshold": 0.01, "counter": "release"},
    "vizwiz-64": {"global_threshold": 0.005, "individual_threshold": 0.001, "counter": "release"},
    **{str(tokens): {"visual_tokens": tokens, "counter": "release"} for tokens in (192, 128, 64, 640, 320, 160)},
}
"""Named settings. The first four are the thresholds that the MustDrop release publishes for LLaVA-1.5-7B, tuned so
that the average over one benchmark comes near the number; on other models and benchmarks the average is another one.
The others are the papers' budgets per image: 192/128/64 for LLaVA-1.5 (576 tokens), 640/320/160 for LLaVA-NeXT (2880
tokens, five tiles of 128/64/32)."""

THRESHOLDS = frozenset({"global_threshold", "individual_threshold"})


@dataclass
class MustDropOptions(PackingOptions, PositionOptions, NewlineOptions, BudgetOptions):
    """Options of MustDrop. A count budget, thresholds, and a `preset` exclude each other."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, frozenset({"preset"}), THRESHOLDS)
    calibrated: ClassVar[tuple[str, float] | None] = ("global_threshold", 1.0)
    earlier: ClassVar[dict[int, dict[str, Any]]] = {
        1: {**BudgetOptions.earlier[1], "compact_first_layers": True, "text_ratio": 0.0},
        2: {"text_ratio": 0.0},
    }

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
    layers: list[int] | None = layers_option("2, 6, 10, 14")
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

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Also, options of the release need what it does."""
        super().check_exclusions(options)
        changed = {name for name, entry in cls.entries().items() if options.get(name) not in (None, entry.default)}
        by_threshold = bool(changed & THRESHOLDS) or "global_threshold" in PRESETS.get(options.get("preset"), {})
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
        if changed & {"decode_drop_ratio", "decode_floor"} and "decode_interval" not in changed:
            raise ValueError("token_reduction: decode_drop_ratio and decode_floor need decode_interval")

    @property
    def by_threshold(self) -> bool:
        """Whether thresholds decide, not a count budget."""
        return self.global_threshold is not None or self.individual_threshold is not None

    @property
    def protects_key_tokens(self) -> bool:
        """Whether key tokens stay under a count budget; in format 1 they only came first."""
        return self.format > 1
