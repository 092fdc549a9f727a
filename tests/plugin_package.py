"""A package as somebody else would write it: a method in one file, and an entry point that names it."""

from __future__ import annotations

from pathlib import Path

METHOD = '''
"""Keep the visual tokens that are nearest to the middle of their tile."""

from lmms_tokendrop.modeling.core.decoder_options import BudgetOptions
from lmms_tokendrop.modeling.core.reducer import Context, Stage, TokenReducer


class CentreDrop(TokenReducer):
    """Drop the others in a layer of the decoder."""

    Options = BudgetOptions

    def stages(self):
        return (Stage("decoder", 1),)

    def score(self, stage: Stage, context: Context):
        tokens = context.tokens
        middle = tokens.row.max() / 2
        return -((tokens.row - middle) ** 2 + (tokens.column - middle) ** 2).double()
'''

ENTRY = """
from lmms_tokendrop.catalogue import Method

CENTRE = Method(name="centre", title="its middle", reducers={{"decoder": "centre_drop.{module}:CentreDrop"}})
"""


def write_plugin(folder: Path, module: str = "centre_drop_reducer", method: str = METHOD) -> Path:
    """Write the package to a folder, as an installer would; `module` is the name of the method's file."""
    package, record = folder / "centre_drop", folder / "centre_drop-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENTRY.format(module=module))
    (package / f"{module}.py").write_text(method.lstrip())
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: centre-drop\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[lmms_tokendrop.plugins]\ncentre = centre_drop:CENTRE\n")
    return folder
