import pytest
import torch
from tiny_models import tiny_image

from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.engine import Engine
from lmms_tokendrop.evaluation.generation import GenerationSettings
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.evaluation.prompts import Prompt, chat_prompt


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
def test_the_language_model_is_quantised_and_still_reduced(tiny_checkpoint, bits):
    options = LoadOptions(
        pretrained=str(tiny_checkpoint("llama")), dtype="bfloat16", load_in_8bit=bits == 8, load_in_4bit=bits == 4
    )
    reduction = {"keep_ratio": 0.4, "layers": [0, 1], "newlines": "keep"}
    engine = Engine(*load_model("llava_next", "mustdrop", options, reduction, torch.device("cpu")))
    kinds = {name: type(module).__name__ for name, module in engine.model.named_modules()}
    quantised = {name for name, kind in kinds.items() if kind in ("Linear8bitLt", "Linear4bit")}
    assert len(quantised) == 4 * 7
    assert all(name.startswith("model.language_model.layers.") for name in quantised)
    images = (tiny_image(60, 40),)
    prompts = [Prompt(chat_prompt(engine.processor, "what is it ?", images), images, 0)]
    [(_, cost)] = engine.generate(prompts, GenerationSettings({"max_new_tokens": 3, "do_sample": False}, ()))
    assert cost.visual_tokens == pytest.approx(0.4 * cost.full_visual_tokens, abs=1)
