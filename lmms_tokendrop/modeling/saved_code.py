"""Configurations that name code are saved with it."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

from transformers.dynamic_module_utils import get_relative_import_files

SIBLINGS = Path(__file__).parent


class SavesItsCode:
    """Saves the files that an `auto_map` names beside the configuration; comes before the stock class in the bases.

    transformers does so for classes that its auto classes loaded. This class does it for those that were imported, so
    that what was loaded from a repository with code still loads with `trust_remote_code` after `save_pretrained`.
    """

    _auto_class: ClassVar[str | None]
    architectures: list[str] | None
    auto_map: Any

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as the stock class does, and the code. An `auto_map` of other code or of another model is left out."""
        modules = set()
        if self._auto_class is None and hasattr(self, "auto_map"):
            modules = self._modules()
            if not modules:
                del self.auto_map
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        for module in modules:
            for file in (module, *map(Path, get_relative_import_files(module))):
                shutil.copyfile(file, Path(save_directory) / file.name)

    def _modules(self) -> set[Path]:
        """Files that the `auto_map` names; empty unless they lie beside this one and have the saved model's class."""
        references = [str(reference).rpartition(".") for reference in dict(self.auto_map).values()]
        modules = {SIBLINGS / f"{module}.py" for module, _, _ in references}
        named = {name for _, _, name in references}
        own = all(module.parent == SIBLINGS and module.is_file() for module in modules)
        return modules if own and named.issuperset(self.architectures or ()) else set()
