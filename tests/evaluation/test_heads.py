import pytest

from lmms_tokendrop.catalogue import architectures
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.heads import HEADS, choose_head, head_of
from lmms_tokendrop.evaluation.loading import load_model


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("prefix", ["Vilt", "ViltTokenDrop", "Meter"])
def test_class_names_say_the_head(head, prefix):
    saved_as = [f"{prefix}For{head.ending}"]
    assert head_of(saved_as) == choose_head(saved_as, None) == choose_head(saved_as, head.name) == head.name


def test_the_argument_says_what_the_checkpoint_does_not():
    assert choose_head([], "visual_entailment") == "visual_entailment"
    assert choose_head(["ViltModel"], "image_and_text_retrieval") == "image_and_text_retrieval"
    assert choose_head(["ViltForQuestionAnswering"], "visual_entailment") == "visual_entailment"
    with pytest.raises(ValueError, match=r"saved as ViltForMaskedLM, .*allowed for head=: question_answering, "):
        choose_head(["ViltForMaskedLM"], None)
    with pytest.raises(ValueError, match="saved as no known class"):
        choose_head([], None)
    with pytest.raises(ValueError, match="head='vqa'; allowed: question_answering, "):
        choose_head([], "vqa")
    with pytest.raises(ValueError, match="head=question_answering: the checkpoint has the head image_and_text_retr"):
        choose_head(["ViltForImageAndTextRetrieval"], "question_answering")


@pytest.mark.parametrize("options", [{"head": "question_answering"}, {"square_image": True}])
@pytest.mark.parametrize("architecture", [family.name for family in architectures() if family.generates])
def test_models_that_write_take_no_encoder_options(architecture, options):
    with pytest.raises(ValueError, match=f"head and square_image are for vilt.*, not for {architecture}"):
        load_model(architecture, "none", LoadOptions(pretrained="x", **options), {}, "cpu")
