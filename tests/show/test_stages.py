"""What became of each patch: the model's own account of it, stage by stage, and by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_image

from lmms_tokendrop.modeling.core.applying import Keep
from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.modeling.core.reducer import Stage
from lmms_tokendrop.show.asking import LoadedVariant
from lmms_tokendrop.show.stages import TEXT, Layout, follow
from lmms_tokendrop.show.watching import Decision, joined, watching

WRITING = {
    "mustdrop": "keep_ratio=0.45,merge_threshold=0.6",
    "visionzip": "keep_ratio=0.3",
    "sparsevlm": "keep_ratio=0.45",
    "pyramiddrop": "",
    "vision_tome": "vision_r=5",
}
QUESTION = "what colour is the square ?"


def watched(loaded, size=(84, 60)):
    """Run a variant, and give the run beside what became of the patches."""
    with torch.inference_mode(), watching(loaded.model) as decisions:
        run = loaded.run(loaded.processor, tiny_image(*size), QUESTION)
    return run, follow(decisions, run.layout)


@pytest.mark.parametrize("size", [(84, 60), (400, 7)], ids=["picture", "banner"])
@pytest.mark.parametrize("method", WRITING)
def test_stages_leave_what_the_report_of_a_decoder_says(tiny_checkpoint, method, size):
    path = tiny_checkpoint()
    loaded = LoadedVariant(f"llava_next_{method}", f"pretrained={path},{WRITING[method]}".rstrip(","), max_new_tokens=2)
    run, stages = watched(loaded, size)
    assert all(stage.owner.keys() <= set(run.layout.alive) for stage in stages)
    kept = {
        name.removeprefix("after "): len({place for place in rows[0] if place[3] < 6})
        for name, rows in run.report.kept.items()
    }
    found = {stage.name.removeprefix("decoder, "): stage.patches for stage in stages}
    entered = [stage.patches for stage in stages if stage.place in ("vision", "features")]
    if entered:
        assert entered[-1] == kept.pop("before layer 0")
    assert {name: found[name] for name in kept} == kept


@pytest.mark.parametrize(("architecture", "method"), [("vilt", "pumer"), ("meter", "tome")])
def test_stages_leave_what_the_report_of_an_encoder_says(fusion_checkpoint, architecture, method):
    run, stages = watched(LoadedVariant(f"{architecture}_{method}", f"pretrained={fusion_checkpoint(architecture)}"))
    kept = {f"block {number}": len(rows[0]) for number, rows in enumerate(run.report.kept.values())}
    assert stages
    assert {stage.name: stage.patches for stage in stages} == {stage.name: kept[stage.name] for stage in stages}


def test_a_patch_that_left_in_a_layer_is_in_the_caches_up_to_it(tiny_checkpoint):
    loaded = LoadedVariant("llava_next_fastv", f"pretrained={tiny_checkpoint()},K=2,R=0.6", max_new_tokens=2)
    answer = loaded.ask(tiny_image(84, 60), QUESTION)
    [stage] = answer.stages
    assert stage.ranks.keys() == set(answer.alive)
    assert {cell: answer.cache[cell] for cell in stage.owner} == dict.fromkeys(stage.owner, 1.0)
    assert {answer.cache[cell] for cell in set(answer.alive) - stage.owner.keys()} == {0.5}  # layers 0 and 1 of 4
    lowest = min(stage.ranks[cell] for cell in stage.owner)
    assert lowest > max(stage.ranks[cell] for cell in set(answer.alive) - stage.owner.keys())


def test_merged_patches_go_on_with_their_owner_or_with_the_text():
    cells = [(0, 0, column) for column in range(4)]
    tokens = FusionTokens.start(torch.ones(1, 2), torch.ones(1, 5))  # text 0 and 1, the image's CLS 2, patches 3 to 6
    first = torch.tensor([[0, 1, 2, 3, 3, 1, -1]])  # the second joins the first, the third the text, the fourth leaves
    second = torch.tensor([[0, 1, 2, -1]])
    later = tokens.after(first, torch.tensor([[0, 1, 2, 3]]), torch.ones(1, 4, dtype=torch.bool), padded=False)
    decisions = [Decision(Stage("fusion", 0), tokens, first, None, None)]
    decisions.append(Decision(Stage("fusion", 1), later, second, None, None))
    before, after = follow(decisions, Layout([cells], cells))
    assert before.owner == {cells[0]: cells[0], cells[1]: cells[0], cells[2]: TEXT}
    assert (before.patches, after.patches) == (1, 0)
    assert after.owner == {cells[2]: TEXT}


def test_what_a_sum_takes_up_is_part_of_it():
    weights = torch.tensor([[[0.5, 0.2, 0.0, 0.0], [0.0, 0.8, 0.0, 1.0]]])
    keep = Keep.of(torch.tensor([[True, False, False, True]]), mixed=(torch.tensor([[0, 3]]), weights))
    assert joined(keep).tolist() == [[0, 3, -1, 3]]


def test_watching_changes_nothing_and_ends(tiny_checkpoint):
    loaded = LoadedVariant("llava_next_random", f"pretrained={tiny_checkpoint()},keep_ratio=0.3", max_new_tokens=3)
    image = tiny_image(84, 60)
    plain = loaded.run(loaded.processor, image, QUESTION)
    run, _ = watched(loaded)
    assert (run.text, run.report.kept) == (plain.text, plain.report.kept)
    assert loaded.model.model.used_reducer is loaded.model.model.token_reducer
