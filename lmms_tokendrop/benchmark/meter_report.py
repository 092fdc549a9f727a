"""The table of what METER's parts cost."""

from __future__ import annotations

from pathlib import Path

from lmms_tokendrop.benchmark.meter_accounting import meter_macs
from lmms_tokendrop.markdown import markdown_table
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterConfig

TEXT_TOKENS = 32
UNREDUCED = "unreduced"
PUMER = {"method": "pumer", "preset": "meter-vqav2"}
ROWS: dict[str, dict] = {
    UNREDUCED: {},
    "PuMer, `meter-vqav2`": PUMER,
    "PuMer, `meter-snli-ve`": {"method": "pumer", "preset": "meter-snli-ve"},
    "ToMe in the CLIP tower, `vision_r=24`": {"method": "vision_tome", "vision_r": 24},
    "PuMer, `meter-vqav2`, with `vision_r=24`": {**PUMER, "vision_r": 24},
    "smaller images, 320 pixels": {"method": "smres", "image_size": 320},
    "PuMer, `meter-vqav2`, at 320 pixels": {**PUMER, "image_size": 320},
}


def meter_macs_table(results: Path) -> str:
    """MACs of METER's parts at its published size, planned from its configuration; no results file is read.

    What a method computes to decide (scores, matching), poolers and heads are left out.
    """
    macs = {name: meter_macs(MeterConfig(), options, TEXT_TOKENS) for name, options in ROWS.items()}
    rows = []
    for name, found in macs.items():
        parts = (found.text, found.vision, found.cross_modal, found.total)
        speed_up = f"{macs[UNREDUCED].total / found.total:.2f}"
        rows.append((name, *(f"{part / 1e9:.2f}" for part in parts), speed_up))
    header = ("", "text tower", "CLIP tower", "cross-modal layers", "G MACs in all", "speed-up that MACs allow")
    return markdown_table(header, rows)
