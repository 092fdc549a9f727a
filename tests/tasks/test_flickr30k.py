"""Flickr30k retrieval: recalls by hand, the test images, and the task from its data to its metrics."""

import json

import numpy as np
import pytest
import torch
from datasets import Image, List, Value
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from lmms_results import answers
from local_data import MODELS, TASKS, pictures, stock_logits

FEATURES = {
    "image": Image(),
    "caption": List(Value("string")),
    "sentids": List(Value("string")),
    "img_id": Value("string"),
    "filename": Value("string"),
}
"""The columns of the data set that lmms-eval's own task reads."""

CAPTIONS = (
    ["a red circle is there", "circle"],
    ["two blue square in the picture", "a yellow letter", "no red square is there but two yellow circle"],
    ["light"],
    ["a square or a circle", "many letter in a picture"],
)
ALL = [text for texts in CAPTIONS for text in texts]
OWNER = np.repeat(range(len(CAPTIONS)), [len(texts) for texts in CAPTIONS])

SCORES = (
    # captions of     image 0     image 1  image 2
    [0.9, 0.1, 0.5, 0.8, 0.2],
    [0.7, 0.6, 0.3, 0.4, 0.2],
    [0.0, 0.2, 0.9, 0.1, 0.2],
)
COUNTS = (2, 2, 1)


def rows(images: int = 4) -> list[dict]:
    return [
        {"image": image, "caption": texts, "sentids": [], "img_id": str(number), "filename": f"{number}.jpg"}
        for number, (image, texts) in enumerate(zip(pictures(images), CAPTIONS, strict=True))
    ]


@pytest.fixture(scope="module")
def config():
    return load_yaml_config(TASKS / "flickr30k" / "tokendrop_flickr30k.yaml")


def processed(config, scores) -> dict[str, list]:
    first = [0, 2, 4]
    documents = [
        {"first_caption": place, "caption": ["text"] * count} for place, count in zip(first, COUNTS, strict=True)
    ]
    values = [
        config["process_results"](document, [json.dumps(row)]) for document, row in zip(documents, scores, strict=True)
    ]
    return {metric: [value[metric] for value in values] for metric in values[0]}


def aggregated(config, values, metric) -> float:
    [entry] = [entry for entry in config["metric_list"] if entry["metric"] == metric]
    return np.mean(values[metric]) if entry["aggregation"] == "mean" else entry["aggregation"](values[metric])


def test_recalls_by_hand(config):
    """Ranks of an image's best caption: 1, 3, 4. Of each caption's image: 1, 3, 2, 2, 3 (0.2 thrice)."""
    values = processed(config, SCORES)
    expected = {"text_recall@1": 1 / 3, "text_recall@5": 1, "image_recall@1": 1 / 5, "image_recall@5": 1}
    for metric, value in expected.items():
        assert aggregated(config, values, metric) == pytest.approx(value)
    assert aggregated(config, values, "text_recall@10") == aggregated(config, values, "image_recall@10") == 1


def test_equal_scores_find_nothing(config):
    values = processed(config, np.zeros((3, 5)).tolist())
    assert aggregated(config, values, "text_recall@1") == aggregated(config, values, "image_recall@1") == 0


def test_the_order_of_images_does_not_matter(config):
    values = processed(config, SCORES)
    backwards = {metric: entries[::-1] for metric, entries in values.items()}
    for entry in config["metric_list"]:
        assert aggregated(config, values, entry["metric"]) == aggregated(config, backwards, entry["metric"])


def test_scores_that_are_not_finite_are_not_ranked(config):
    with pytest.raises(ValueError, match="not finite"):
        processed(config, [[float("nan")] * 5] * 3)


def load(folder):
    return TaskManager("ERROR", include_path=str(folder), include_defaults=False).load_task_or_group("local")["local"]


def test_the_test_images_are_a_thousand():
    names = (TASKS / "flickr30k" / "test_images.txt").read_text().split()
    assert len(names) == len(set(names)) == 1000
    assert all(name.removesuffix(".jpg").isdecimal() for name in names)


def test_the_named_images_are_selected_in_order(local_task, tmp_path):
    (tmp_path / "names.txt").write_text("3.jpg\n1.jpg\n")
    local_task("tokendrop_flickr30k", rows(), FEATURES, test_images=str(tmp_path / "names.txt"))
    documents = load(tmp_path).eval_docs_no_media
    assert list(documents["filename"]) == ["3.jpg", "1.jpg"]
    assert list(documents["caption"]) == [CAPTIONS[3], CAPTIONS[1]]
    assert list(documents["first_caption"]) == [0, 2]
    assert load(tmp_path).test_docs()[1]["image"].tobytes() == pictures(2)[1].tobytes()


def test_wrong_data_are_clear_errors(local_task, tmp_path):
    local_task("tokendrop_flickr30k", rows(), FEATURES)
    with pytest.raises(
        ValueError, match=r"1000 of the 1000 images in test_images.txt are not in parquet, such as 1007129"
    ):
        load(tmp_path)
    without = [{**row, "caption": []} for row in rows()]
    local_task("tokendrop_flickr30k", without, FEATURES, test_images=None)
    with pytest.raises(ValueError, match="every row's caption must be a list of one text or more"):
        load(tmp_path)


@pytest.fixture
def retrieval(fusion_checkpoint):
    return fusion_checkpoint("vilt", "retrieval")


def recall(scores: torch.Tensor, owner: np.ndarray, k: int) -> tuple[float, float]:
    """Text and image recall of distinct scores ``[images, captions]``, by sorting."""
    texts = [bool((owner[row.topk(k).indices.numpy()] == image).any()) for image, row in enumerate(scores)]
    images = [image in column.topk(min(k, len(scores))).indices for column, image in zip(scores.T, owner, strict=True)]
    return np.mean(texts), np.mean(images)


@pytest.mark.parametrize("model", MODELS)
def test_the_task_runs(local_task, fusion_checkpoint, model):
    architecture, method = model.split("_")
    path = fusion_checkpoint(architecture, "retrieval")
    run = local_task("tokendrop_flickr30k", rows(), FEATURES, test_images=None)
    results, alone = (run(model, pretrained=path, batch_size=size) for size in ("auto", 1))
    scores = torch.tensor([json.loads(given) for [given] in answers(results, "local")], dtype=torch.float64)
    assert scores.flatten().unique().numel() == scores.numel()
    for k in (1, 5):
        text, image = recall(scores, OWNER, k)
        assert results["results"]["local"][f"text_recall@{k},none"] == pytest.approx(text)
        assert results["results"]["local"][f"image_recall@{k},none"] == pytest.approx(image)
    again = torch.tensor([json.loads(given) for [given] in answers(alone, "local")], dtype=torch.float64)
    torch.testing.assert_close(scores, again, rtol=0, atol=1e-4)
    cost = results["throughput"]
    if method == "full":
        pairs = [[image] * len(ALL) for image in pictures(4)]
        stock = [stock_logits(path, architecture, "retrieval", ALL, images)[:, 0] for images in pairs]
        torch.testing.assert_close(scores.float(), torch.stack(stock), rtol=0, atol=1e-4)
        assert cost["avg_visual_tokens"] == cost["avg_full_visual_tokens"]
    else:
        assert cost["avg_visual_tokens"] < cost["avg_full_visual_tokens"]


def test_fewer_images_and_fewer_captions(local_task, retrieval):
    run = local_task("tokendrop_flickr30k", rows(), FEATURES, test_images=None)

    def scores(**options):
        return [json.loads(given) for [given] in answers(run("vilt_full", pretrained=retrieval, **options), "local")]

    assert [len(row) for row in scores(limit=2)] == [8, 8]
    assert [len(row) for row in scores(limit=2, gen_kwargs="candidate_documents=2")] == [5, 5]
    with pytest.raises(ValueError, match="candidate_documents=2, and document 3 is asked about"):
        scores(gen_kwargs="candidate_documents=2")
    with pytest.raises(ValueError, match="candidate_documents=5; allowed: 1 to 4"):
        scores(gen_kwargs="candidate_documents=5")
    with pytest.raises(ValueError, match="candidates='title'; allowed: image, caption, "):
        scores(gen_kwargs="candidates=title")


def test_models_without_a_retrieval_head_are_errors(local_task, tiny_vilt_checkpoint, tiny_checkpoint):
    run = local_task("tokendrop_flickr30k", rows(), FEATURES, test_images=None)
    with pytest.raises(ValueError, match=r"the head image_and_text_retrieval; this one has question_answering"):
        run("vilt_full", pretrained=tiny_vilt_checkpoint())
    with pytest.raises(ValueError, match=r"local ranks texts and llava_next_full writes them"):
        run("llava_next_full", pretrained=tiny_checkpoint())
