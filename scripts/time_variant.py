"""Run the work of `compare_speed.py` with the lmms_tokendrop that is imported.

    python time_variant.py WORK.json

Builds an unreduced and a reduced model with random weights. Each line of standard input, ``full`` or ``reduced``, is
answered with the seconds of a forward pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers.utils import logging

import lmms_tokendrop


def models(case: dict[str, Any]) -> dict[str, Any]:
    """Both models, by the words that ask for them."""
    config_class, model_class = (getattr(lmms_tokendrop, case["model"] + ending) for ending in ("Config", case["head"]))
    full = model_class(config_class(**case["config"])).eval()
    with torch.device("meta"):
        reduced = model_class(config_class(**case["config"], token_reduction=case["reduction"])).eval()
    reduced.load_state_dict(full.state_dict(), assign=True)
    for name, value in full.named_buffers():
        reduced.get_submodule(name.rpartition(".")[0]).register_buffer(name.rpartition(".")[2], value, persistent=False)
    return {"full": full, "reduced": reduced}


@torch.inference_mode()
def main() -> None:
    logging.set_verbosity_error()
    path = Path(sys.argv[1])
    work = json.loads(path.read_text())
    if not Path(lmms_tokendrop.__file__).is_relative_to(work["tree"]):
        raise ImportError(f"lmms_tokendrop comes from {lmms_tokendrop.__file__}, not from {work['tree']}")
    built, inputs = models(work["case"]), torch.load(path.with_name("inputs.pt"))
    for line in sys.stdin:
        begin = perf_counter()
        built[line.strip()](**inputs)
        print(perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
