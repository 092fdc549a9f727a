"""The versions of transformers that this code was tested with. Importing this file under another one warns, once."""

import transformers
from transformers.utils import logging

TESTED = ("5.19", "5.25")
"""The first version, and the first one that is too new."""


def warn_if_untested() -> None:
    """Log a warning unless the installed transformers is one of the tested versions; every copy of this file counts."""
    first, end, found = (
        tuple(int(part) for part in version.split(".")[:2]) for version in (*TESTED, transformers.__version__)
    )
    if not first <= found < end:
        logging.get_logger("lmms_tokendrop").warning_once(
            f"lmms_tokendrop's models were tested with transformers>={TESTED[0]},<{TESTED[1]}, and this is "
            f"{transformers.__version__}: they may fail to load or give other results"
        )


warn_if_untested()
