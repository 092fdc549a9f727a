"""Score how well each of many texts fits an image, with encoders that read both together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from lmms_tokendrop.catalogue import RETRIEVAL
from lmms_tokendrop.evaluation.batching import Batches
from lmms_tokendrop.evaluation.cost import SampleCost, mean_cost
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine, sample_costs
from lmms_tokendrop.evaluation.heads import CANDIDATES
from lmms_tokendrop.evaluation.prompts import Prompt

CANDIDATE_DOCUMENTS = "candidate_documents"
"""Entry that limits the candidates to those of the first so many documents."""


def candidate_texts(documents: Dataset, options: Mapping[str, Any], last: int) -> list[str]:
    """Return the texts of all documents that a task ranks, in order.

    Parameters
    ----------
    documents
        The task's documents.
    options
        Its ``generation_kwargs``.
    last
        The last document whose image is asked about; its own texts must be among the candidates.

    Raises
    ------
    ValueError
        If an entry is wrong, with the values that are allowed.
    """
    column, limit = options[CANDIDATES], options.get(CANDIDATE_DOCUMENTS)
    if column not in documents.column_names:
        raise ValueError(f"generation_kwargs: {CANDIDATES}={column!r}; allowed: {', '.join(documents.column_names)}")
    if limit is not None and (type(limit) is not int or not 0 < limit <= len(documents)):
        raise ValueError(f"generation_kwargs: {CANDIDATE_DOCUMENTS}={limit!r}; allowed: 1 to {len(documents)}")
    if limit is not None and last >= limit:
        raise ValueError(
            f"generation_kwargs: {CANDIDATE_DOCUMENTS}={limit}, and document {last} is asked about, whose own texts "
            f"are then missing; pass --limit {limit} or less"
        )
    return [text for texts in documents[column][:limit] for text in texts]


class Ranker:
    """Scores of the same texts for one image after the other.

    Texts are tokenised once, and a batch has texts of about equal length. Where the model has a tower for text and one
    for images, each text and each image goes through it once, and the averages of the cost are over the layers behind.

    Parameters
    ----------
    engine
        A model with a retrieval head.
    texts
        The candidates.
    batches
        Size of a batch, in pairs of a text and an image.
    source
        Where the texts are from, for warnings.

    Raises
    ------
    ValueError
        If the model has another head.
    """

    def __init__(self, engine: EncoderEngine, texts: Sequence[str], batches: Batches, source: str = "texts") -> None:
        if engine.head != RETRIEVAL:
            raise ValueError(f"to rank texts a checkpoint must have the head {RETRIEVAL}; this one has {engine.head}")
        self.engine = engine
        self.batches = batches
        self.encoder: Any = engine.model.base_model
        self.texts = engine.token_ids(texts, [f"{source}: candidate {number}" for number in range(len(texts))])
        self.by_length = sorted(range(len(texts)), key=lambda place: -len(self.texts[place]))
        self.features = self._text_features() if hasattr(self.encoder, "get_text_features") else None

    @torch.inference_mode()
    def scores(self, prompt: Prompt) -> tuple[list[float], SampleCost]:
        """Score every text.

        Parameters
        ----------
        prompt
            Its image counts.

        Returns
        -------
        tuple of list of float and SampleCost
            Scores in the order of the texts; the cost of all pairs, tokens being the mean over them.
        """
        started = time.perf_counter()
        pixels = self.engine.pixel_inputs(prompt.images)
        image = {**self._image_inputs(pixels), "sample_seeds": torch.tensor([prompt.seed])}
        scores, costs = [0.0] * len(self.texts), []

        def run(places: Sequence[int]) -> list[tuple[float, SampleCost]]:
            inputs = {name: value.expand(len(places), *value.shape[1:]) for name, value in image.items()}
            output = self.engine.model(**inputs, **self._text_inputs(places))
            if self.features is not None:
                output.report.full_visual_tokens = self.encoder.full_image_tokens(**pixels) * len(places)
            return list(zip(output.logits[:, 0].tolist(), sample_costs([output.report], 0.0), strict=True))

        for place, (score, cost) in self.batches.run(self.by_length, run):
            scores[place] = score
            costs.append(cost)
        return scores, mean_cost(costs, seconds=time.perf_counter() - started)

    def _image_inputs(self, pixels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for an image, in one row, with what the image tower makes of it if there is one."""
        if not hasattr(self.encoder, "get_image_features"):
            return pixels
        return {"image_embeds": self.encoder.get_image_features(**pixels)}

    def _text_inputs(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for some of the texts."""
        inputs = self.engine.text_inputs([self.texts[place] for place in places])
        if self.features is not None:
            del inputs["input_ids"]
            inputs["text_embeds"] = pad_sequence([self.features[place] for place in places], batch_first=True)
        return inputs

    @torch.inference_mode()
    def _text_features(self) -> dict[int, torch.Tensor]:
        """Return what the text tower makes of each text, `[length, channels]`."""

        def run(places: Sequence[int]) -> list[torch.Tensor]:
            states = self.encoder.get_text_features(**self.engine.text_inputs([self.texts[place] for place in places]))
            return [row[: len(self.texts[place])].clone() for row, place in zip(states, places, strict=True)]

        return dict(self.batches.run(self.by_length, run))
