"""Every table of results files, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmms_tokendrop.results.budget_names import TEXT_RATIOS
from lmms_tokendrop.results.budgets import ablation_table, budget_table
from lmms_tokendrop.results.compared_table import compared_tables
from lmms_tokendrop.results.compositions import compositions_table
from lmms_tokendrop.results.gpu import GPU_TABLES
from lmms_tokendrop.results.measured import measured_table
from lmms_tokendrop.results.planned import planned_table
from lmms_tokendrop.results.pocket_encoders import encoder_table, loss_table, types_table
from lmms_tokendrop.results.published import published_costs, published_table
from lmms_tokendrop.results.speed import speed_table
from lmms_tokendrop.results.throughput import throughput_table

REAL_MODELS = ("llava-1.5-7b", "llava-1.5-13b", "llava-v1.6-vicuna-7b", "llava-v1.6-vicuna-13b")
SPEEDS = ("32x512", "8x4096", "8x1024", "methods")
"""Layers and channels of the decoders whose speed is measured, and the methods beside each other."""

RESULTS_TABLES: dict[str, Callable[[Path], str]] = {
    "pocket-scenes": budget_table("pocket_scenes"),
    "easy-vqa": budget_table("easy_vqa"),
    "compared": compared_tables,
    "compositions": compositions_table,
    "published-costs": published_costs,
    **{f"published-{model}": published_table(model) for model in ("llava-1.5-7b", "llava-v1.6-vicuna-7b")},
    **{f"planned-{model}": planned_table(model) for model in REAL_MODELS},
    "mustdrop-ablation": ablation_table("pocket_scenes"),
    "mustdrop-choice-pocket": ablation_table("pocket_scenes_validation", TEXT_RATIOS),
    "mustdrop-choice-easy": ablation_table("easy_vqa_validation", TEXT_RATIOS),
    "pocket-vilt-methods": encoder_table("vilt", "methods"),
    "pocket-meter-methods": encoder_table("meter", "methods"),
    "pocket-vilt-loss": loss_table("vilt"),
    "pocket-meter-loss": loss_table("meter"),
    "pocket-vilt-types": types_table("vilt"),
    "pocket-meter-types": types_table("meter"),
    **{f"speed-{name}": measured_table(f"speed_{name}.json", speed_table) for name in SPEEDS},
    "throughput-vilt": measured_table("throughput_vilt.json", throughput_table),
    "throughput-meter": measured_table("throughput_meter.json", throughput_table),
    **GPU_TABLES,
}
"""From the folder of the results files to a table in Markdown. A missing file is a table that says so."""
