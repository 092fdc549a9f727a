"""Draw what MustDrop leaves of one pocket scene, for the README."""

from itertools import islice
from pathlib import Path

import torch
import typer
from transformers import AutoProcessor

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, pocket_path
from lmms_tokendrop.modeling.transformers_compat import cache_of
from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes
from lmms_tokendrop.visualize import draw_kept_tokens


def main(output: Path, scene: int = 0, question: int = 0, keep_ratio: float = 0.25) -> None:
    """Answer a question of pocket_scenes and draw the tokens behind the answer."""
    folder = pocket_path("llava_next", "mustdrop")
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        folder, token_reduction={"method": "mustdrop", "keep_ratio": keep_ratio}
    )
    processor = AutoProcessor.from_pretrained(folder)
    chosen, asked = next(islice(task_scenes(), scene, None))
    image = render(chosen)
    content = [{"type": "image"}, {"type": "text", "text": asked[question].text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=4, return_dict_in_generate=True)
    answer = processor.decode(generated.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    typer.echo(f"{asked[question].text} -> {answer} (right: {asked[question].answer})")
    report = cache_of(generated).report()
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_kept_tokens(image, report.kept, model.config).save(output)


if __name__ == "__main__":
    typer.run(main)
