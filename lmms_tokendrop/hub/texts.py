"""What model cards say whatever was measured."""

from __future__ import annotations

OWN_METHOD = "This method is a baseline of lmms_tokendrop."
COMMON_LIMIT = "- Figures hold for the settings, tasks and machines that they name."
UNTUNED_LIMIT = "- The weights were trained without this reduction, as far as their configuration says."
BASE_LIMIT = "- The weights are fetched from the base model's repository, which has to stay available."
POCKET_LIMIT = (
    "- The bundled model is small and was trained on generated scenes: its figures rank methods on this model only."
)
