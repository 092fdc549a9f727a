"""What MustDrop leaves at the papers' budgets, from the rule's formula worked out apart from the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SQUARE = (24,) * 5
LANDSCAPE = (24, 18, 18, 18, 18)


@dataclass(frozen=True)
class Golden:
    """A picture of five tiles under a budget, `newlines="drop"`, `key_ratio=0.08`.

    Parameters
    ----------
    layers
        Layers of the decoder.
    tokens, counter
        The budget.
    forced, after_merging, keys, stages
        Windows that merge only because the budget asks for it; tokens that enter the decoder; key tokens; tokens after
        each of the four drops.
    similar
        Windows at or above `merge_threshold`.
    rows
        Rows of 24 patches that unpadding leaves of each tile.
    in_turn
        Whether the most similar windows are one of each tile in turn, or all of the first tile, then of the next.
    text_ratio
        Places per key token that merging makes room for; 0: key tokens alone.
    """

    layers: int
    tokens: int
    counter: str
    forced: int
    after_merging: int
    keys: int
    stages: tuple[int, int, int, int]
    similar: int = 0
    rows: tuple[int, ...] = SQUARE
    in_turn: bool = True
    text_ratio: float = 0.0

    @property
    def reduction(self) -> dict[str, Any]:
        """Options of the method."""
        return {"visual_tokens": self.tokens, "counter": self.counter, "text_ratio": self.text_ratio}

    def __str__(self) -> str:
        order = "" if self.in_turn else ", tile by tile"
        shape = "square" if self.rows == SQUARE else "landscape"
        budget = f"{self.layers} layers, {self.tokens} {self.counter}, room {self.text_ratio:g}"
        return f"{budget}, {self.similar} similar, {shape}{order}"


GOLDENS = [
    Golden(32, 640, "input", 0, 2880, 235, (1214, 512, 235, 235)),
    Golden(32, 640, "release", 0, 2880, 235, (1477, 757, 389, 235)),
    Golden(32, 320, "input", 121, 1912, 155, (157, 155, 155, 155)),
    Golden(32, 320, "release", 73, 2296, 187, (197, 187, 187, 187)),
    Golden(32, 160, "input", 242, 944, 78, (85, 78, 78, 78)),
    Golden(32, 160, "release", 217, 1144, 93, (104, 93, 93, 93)),
    Golden(40, 640, "input", 0, 2880, 235, (1380, 661, 317, 235)),
    Golden(40, 640, "release", 0, 2880, 235, (1554, 839, 452, 244)),
    Golden(40, 320, "input", 93, 2136, 172, (178, 172, 172, 172)),
    Golden(40, 320, "release", 46, 2512, 204, (209, 204, 204, 204)),
    Golden(40, 160, "input", 228, 1056, 87, (90, 87, 87, 87)),
    Golden(40, 160, "release", 203, 1256, 102, (104, 102, 102, 102)),
    Golden(32, 640, "input", 0, 2400, 195, (1310, 715, 390, 213), similar=60),
    Golden(32, 640, "input", 0, 640, 55, (640, 640, 640, 640), similar=300),  # 280 of them merge
    Golden(32, 320, "input", 50, 1904, 156, (157, 156, 156, 156), rows=LANDSCAPE),
    Golden(32, 320, "input", 122, 1904, 156, (157, 156, 156, 156), in_turn=False),
    Golden(32, 640, "input", 27, 2664, 215, (1287, 621, 300, 215), text_ratio=1.0),
    Golden(32, 640, "release", 0, 2880, 235, (1477, 757, 389, 235), text_ratio=1.0),
    Golden(32, 320, "input", 197, 1304, 108, (645, 320, 158, 108), text_ratio=1.0),
    Golden(32, 320, "release", 174, 1488, 121, (733, 361, 178, 121), text_ratio=1.0),
    Golden(32, 160, "input", 280, 640, 55, (322, 162, 82, 55), text_ratio=1.0),
    Golden(32, 160, "release", 269, 728, 61, (366, 183, 93, 61), text_ratio=1.0),
    Golden(40, 640, "input", 5, 2840, 230, (1390, 681, 333, 230), text_ratio=1.0),
    Golden(40, 640, "release", 0, 2880, 235, (1554, 839, 452, 244), text_ratio=1.0),
    Golden(40, 320, "input", 185, 1400, 115, (696, 346, 172, 115), text_ratio=1.0),
    Golden(40, 320, "release", 164, 1568, 126, (777, 385, 191, 126), text_ratio=1.0),
    Golden(40, 160, "input", 273, 696, 57, (349, 175, 88, 57), text_ratio=1.0),
    Golden(40, 160, "release", 266, 752, 64, (386, 198, 101, 64), text_ratio=1.0),
]

SMALLEST = [(32, "input", "57.19"), (32, "release", "48.12"), (40, "input", "51.75"), (40, "release", "44.50")]
"""Layers, counter, and the smallest average that a square picture can reach."""
