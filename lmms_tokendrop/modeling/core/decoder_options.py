"""Options that the framework reads in decoders, for methods to inherit: budget, newlines, positions, packing."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from .budget import Budget
from .options import Options, option

FORMAT = 3
"""Number that saved options carry."""

COUNT_BUDGETS = frozenset({"visual_tokens", "keep_ratio"})


LOWERING = ("layers", "K", "key_ratio")
"""Options, of whatever method, on which the smallest average depends that it can leave: lower ones leave less."""


FRAMEWORK = {"newlines": "drop", "position_mode": "original", "packing": "spatial", "scope": "image"}
"""What the framework does for methods that have no such option."""


WITHOUT_NEWLINES = {"newlines": "drop", "packing": "flat"}
"""What options imply where images have no newlines: they are laid end to end as they are."""


def setting(options: Options, name: str) -> str:
    """The value of one of the options of `FRAMEWORK`, for whatever method."""
    return getattr(options, name, FRAMEWORK[name])


@dataclass
class DecoderOptions(Options):
    """Options of a method in a decoder, which are saved with the number of a format.

    Attributes
    ----------
    earlier : dict[int, dict]
        Defaults that were others in an earlier format.
    """

    first_format: ClassVar[int | None] = 1
    earlier: ClassVar[dict[int, dict[str, Any]]] = {1: {"counter": "input", "newlines": "row"}}

    format: int = option(
        FORMAT,
        "Which budget rule and defaults: 1 is how configurations without this number were saved, before key tokens "
        "stayed under a budget; 2 made no room for the text's choice.",
        low=1,
        high=FORMAT,
    )

    @classmethod
    def earlier_defaults(cls, options: dict) -> dict:
        """Those of the options' format, for what the method reads."""
        earlier = cls.earlier.get(options.get("format", FORMAT), {})
        without = {"newlines"} if options.get("packing") == "flat" else set()
        return {name: value for name, value in earlier.items() if name in cls.entries().keys() - without}

    def to_dict(self) -> dict:
        """The method, and every option that has a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def counts_newlines(self) -> bool:
        """Whether newlines are among the tokens that a budget can keep; in format 1 also those that leave at once."""
        return setting(self, "newlines") != "drop" or self.format == 1


def share_option(without: str):
    """The option `keep_ratio`, given what happens `without` a budget."""
    share = (
        "The same as a share (above 0, at most 1) of the unreduced model's tokens, without newlines where these leave"
    )
    return option(None, f"{share}; {without}", low=1e-9, high=1)


@dataclass
class BudgetOptions(DecoderOptions):
    """A count budget. Without one, `keep_ratio` is 1/9, the share that the MustDrop paper calls 320 of 2880 tokens."""

    alternatives: ClassVar[tuple] = (frozenset({"visual_tokens"}), frozenset({"keep_ratio"}))
    usual: ClassVar[dict[str, Any]] = {"keep_ratio": 1 / 9, "counter": "release"}
    """What holds where neither a budget nor what takes the place of one is given."""

    visual_tokens: float | None = option(
        None, "Budget: visual tokens per `scope` and turn, averaged over the decoder layers.", low=1
    )
    keep_ratio: float | None = share_option("default without a budget, preset or thresholds: 1/9.")
    scope: str = option("image", "What a budget is stated for.", allowed=("image", "tile", "request"))
    counter: str | None = option(
        None,
        "What a budget counts: tokens that a layer receives (`input`, the default of a given budget), or those left "
        "after its drop (`release`, the default without one).",
        allowed=("input", "release"),
    )

    def __post_init__(self) -> None:
        stated = (getattr(self, name) for way in self.alternatives for name in way if name != "preset")
        without_budget = all(value is None for value in stated)
        for name, value in {"counter": "input", **(self.usual if without_budget else {})}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Budgets exclude each other."""
        given = {key for key, value in options.items() if value is not None}
        chosen = [sorted(given & way) for way in cls.alternatives if given & way]
        if len(chosen) > 1:
            clash = ", ".join(name for way in chosen for name in way)
            ways = ", ".join(" and ".join(sorted(way)) for way in cls.alternatives)
            raise ValueError(f"token_reduction: {clash} exclude each other; give one of {ways}")

    @classmethod
    def merged(cls, saved: dict, given: dict) -> dict:
        """As :meth:`Options.merged`; a given count budget brings its own counter, too."""
        if given.keys() & COUNT_BUDGETS:
            saved = {name: value for name, value in saved.items() if name != "counter"}
        return super().merged(saved, given)

    def budget(self) -> Budget:
        """The count budget."""
        return Budget(self.visual_tokens, self.keep_ratio, self.scope, self.counter, self.lowered_by)

    @property
    def lowered_by(self) -> tuple[str, ...]:
        """Options that lower the smallest average that the method can leave."""
        return tuple(name for name in LOWERING if name in self.entries())


@dataclass
class OneFormatOptions(DecoderOptions):
    """Options of a method that is younger than the first format, and whose defaults were never others."""

    first_format: ClassVar[int | None] = None

    format: int = option(FORMAT, "Format in which the options were saved.", low=2, high=FORMAT)


@dataclass
class NewlineOptions(DecoderOptions):
    """What becomes of newline tokens."""

    newlines: str = option(
        "drop",
        "A newline token stays while a token of its row does (`row`), always (`keep`) or never (`drop`, the release).",
        allowed=("row", "keep", "drop"),
    )


@dataclass
class PositionOptions(DecoderOptions):
    """Which rotary positions tokens have."""

    position_mode: str = option(
        "original",
        "`original` rotary positions, or `compact` ones counted over what is left (the release).",
        allowed=("original", "compact"),
    )


@dataclass
class PackingOptions(DecoderOptions):
    """How the tiles of an image are laid out."""

    packing: str = option(
        "spatial",
        "Tiles are unpadded and get newlines, or are laid end to end (`flat`, the release; prompts need "
        "`FlatLlavaNextProcessor`).",
        allowed=("spatial", "flat"),
    )
