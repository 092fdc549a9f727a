"""The variants as lmms-eval's registry takes them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmms_tokendrop.catalogue import variants

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list[ModelManifest]:
    """Return what lmms-eval's entry point ``lmms_eval.models`` loads: one manifest per variant."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=entry.model_id, simple_class_path=entry.adapter) for entry in variants()]
