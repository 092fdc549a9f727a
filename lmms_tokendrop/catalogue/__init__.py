"""The architectures and the methods there are, and their product, the variants. Imports no torch.

Everything that differs from architecture to architecture or from method to method outside `lmms_tokendrop.modeling` is
said once, in `architectures.py` and `methods.py` here. Other packages add to it with `register`, or with an entry point
of the group ``lmms_tokendrop.plugins``.
"""

from lmms_tokendrop.catalogue.checks import PARTS
from lmms_tokendrop.catalogue.entries import POCKET, Architecture, Method, Paper, Variant
from lmms_tokendrop.catalogue.heads import ENCODER_HEADS, RETRIEVAL, TWO_IMAGES, Head
from lmms_tokendrop.catalogue.registry import (
    PLUGINS,
    architecture,
    architectures,
    method,
    methods,
    register,
    variant,
    variants,
)

__all__ = [
    "ENCODER_HEADS",
    "PARTS",
    "PLUGINS",
    "POCKET",
    "RETRIEVAL",
    "TWO_IMAGES",
    "Architecture",
    "Head",
    "Method",
    "Paper",
    "Variant",
    "architecture",
    "architectures",
    "method",
    "methods",
    "register",
    "variant",
    "variants",
]
