"""The options of SparseVLM, and the settings that its releases publish."""

from dataclasses import dataclass
from typing import ClassVar

from ..core.decoder_options import BudgetOptions, OneFormatOptions, PositionOptions
from ..core.drop_layers import layers_option
from ..core.options import option

PRESETS: dict[str, dict] = {
    "192": {"kept": [300, 200, 110]},
    "128": {"kept": [303, 110, 36]},
    "96": {"kept": [238, 48, 26]},
    "64": {"kept": [66, 30, 17]},
    "v2-192": {"kept": [300, 200, 118], "recycling": "none"},
    "v2-128": {"kept": [238, 108, 60], "recycling": "none"},
    "v2-96": {"kept": [246, 54, 28], "recycling": "none"},
    "v2-64": {"kept": [66, 34, 20], "recycling": "none"},
    "first-192": {"rank_scale": 13.5},
    "first-128": {"rank_scale": 9.0, "rank_bias": 6.0},
    "first-64": {"rank_scale": 0.8},
}
"""Named settings, for images of 576 tokens: the lists of release 1.5 and of release 2.0 (whose choice of heads is not
here), and the rank rule of the first release, which it tuned on MME, POPE and TextVQA."""

COUNT_RULES = (frozenset({"kept"}), frozenset({"rank_ratio"}), frozenset({"rank_scale", "rank_bias"}))


@dataclass
class SparseVLMOptions(OneFormatOptions, PositionOptions, BudgetOptions):
    """Options of SparseVLM. A count budget, `kept`, `rank_ratio`, `rank_scale`, and a `preset` exclude each other."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, *COUNT_RULES, frozenset({"preset"}))
    calibrated: ClassVar[tuple[str, float] | None] = ("rank_ratio", 1.0)

    preset: str | None = option(None, "Named lists and rules of the SparseVLM releases.", allowed=tuple(PRESETS))
    kept: list[int] | None = option(
        None, "Visual tokens per `scope` that each drop keeps, those that are recycled not counted.", low=1
    )
    rank_ratio: float | None = option(
        None,
        "Of the tokens beyond the rank of the attention that the raters give them, the share that each drop takes (the "
        "paper's rule; how many are left depends on the data).",
        low=0,
        high=1,
    )
    rank_scale: float | None = option(
        None,
        "Tokens that each drop keeps per rank of that attention (the first release's rule, which never keeps all; "
        "depends on the data).",
        low=0,
    )
    rank_bias: float | None = option(
        None, "Tokens that each drop keeps beside those of `rank_scale`; default: 0.", low=0
    )
    layers: list[int] | None = layers_option("2, 6, 15, with `rank_scale` also 19,")
    recycling: str = option(
        "mean",
        "What becomes of dropped tokens: those of a cluster come back as their `mean`, of the nearest to each centre "
        "(the release), as their `sum`, of the most similar by cosine (the paper), or not at all (`none`).",
        allowed=("mean", "sum", "none"),
    )
    recycled_ratio: float = option(
        0.3,
        "Share of the dropped tokens that are clustered, those of highest score; rounded down, and one more.",
        low=0,
        high=1,
    )
    cluster_ratio: float = option(
        0.1, "Clusters per token that is clustered; rounded down, and one more.", low=0, high=0.5
    )

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Also, options that have no meaning alone."""
        super().check_exclusions(options)
        if options.get("rank_bias") is not None and options.get("rank_scale") is None:
            raise ValueError("token_reduction: rank_bias needs rank_scale")
        if options.get("recycling") == "none":
            for name in ("recycled_ratio", "cluster_ratio"):
                if options.get(name, getattr(cls, name)) != getattr(cls, name):
                    raise ValueError(f"token_reduction: {name} needs recycling; allowed with it: 'mean', 'sum'")

    @property
    def by_rank(self) -> bool:
        """Whether how many tokens are left depends on the data."""
        return self.rank_ratio is not None or self.rank_scale is not None
