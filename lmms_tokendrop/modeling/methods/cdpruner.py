"""CDPruner: tokens that differ from each other and fit the question, by a determinantal process (arXiv 2506.10967)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer, CLIPModel

from ..core.feature_selection import FeatureOptions
from ..core.options import option
from ..core.reducer import Context, Host, Keep, Stage, TokenReducer
from ..core.token_groups import TokenGroups
from ..ops.greedy import pivoted_qr

LEAST = 1e-6
"""Relevance of the token that fits the question least, where that of the best is 1."""


@dataclass
class CDPrunerOptions(FeatureOptions):
    """Options of CDPruner."""

    required: ClassVar[dict[str, str]] = {"clip": "openai/clip-vit-large-patch14-336"}

    clip: str | None = option(
        None,
        "CLIP checkpoint that the vision tower is from, a folder or a repository of the Hub: its text tower reads the "
        "question, its projections compare. Must be given.",
    )
    tokenizer: str | None = option(
        None, "Where the tokenizer of the language model is, which tells the question; default: in its checkpoint."
    )


class CDPruner(TokenReducer):
    """Before the first layer, keep tokens that differ from each other, given how well they fit the question.

    Greedy choice of the likeliest subset of a determinantal point process whose kernel is the cosine of two projected
    features times the relevance of both. Relevance is minus the cosine of a patch and of the text behind the image, in
    CLIP's common space, stretched over a group to 1 at the most. The release stretches it over a whole batch.

    Attributes
    ----------
    questions : Questions
        What says how well patches fit questions.
    """

    Options: type[Any] = CDPrunerOptions
    needs = frozenset({"questions"})
    builds_on: ClassVar[dict[str, str]] = {"features": "vision"}

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        if "vision" in host.places and "features" not in host.places:
            raise ValueError("token_reduction: vision='cdpruner' only rates; allowed: features='cdpruner'")
        self.questions = Questions(options.clip, options.tokenizer or host.checkpoint)

    def stages(self) -> tuple[Stage, ...]:
        """One where the tower's features are read, which only rates them, and one before the first layer."""
        return (Stage("vision", self.host.feature_block, "after_block"), Stage("features"))

    def count(self, stage: Stage, counts: Any) -> Any:
        """Everything in the tower; then what the budget leaves."""
        return (counts.text, counts.image) if stage.place == "vision" else super().count(stage, counts)

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Rate in the tower, choose behind it."""
        if stage.place == "features":
            return super().keep(stage, context)
        fit = self.questions.fit(context.hidden_states, context.provided("questions"), context.provided("tiles").image)
        return Keep.of(torch.ones_like(context.valid), carry={"relevance": -fit})

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Minus the number of the pick."""
        groups = TokenGroups.of(context)
        relevance = stretched(groups.gather(context.tokens.carry["relevance"]), groups.valid)
        count = self.count(stage, context.counts)
        return groups.spread(-pivoted_qr(groups.directions(context), groups.valid, count, relevance), context)


def stretched(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Values `[groups, entries]`, moved and scaled to `LEAST` to 1 among the `valid` ones of a group; 1 if equal."""
    low = values.masked_fill(~valid, float("inf")).amin(-1, keepdim=True)
    high = values.masked_fill(~valid, float("-inf")).amax(-1, keepdim=True)
    return (values - low + LEAST) / (high - low).clamp_min(LEAST)


class Questions:
    """CLIP's view of questions. It is loaded when it is first asked, and is no part of the model.

    Parameters
    ----------
    clip : str
        Where CLIP is.
    tokenizer : str
        Where the tokenizer of the language model is.
    """

    def __init__(self, clip: str, tokenizer: str):
        self.clip, self.tokenizer = clip, tokenizer

    @cached_property
    def _model(self) -> CLIPModel:
        return CLIPModel.from_pretrained(self.clip, dtype=torch.float32).eval()

    @cached_property
    def _tokenizers(self) -> tuple[Any, Any]:
        """Of the language model and of CLIP."""
        if not self.tokenizer:
            raise ValueError(
                "token_reduction: tokenizer: cdpruner decodes the question, and this model was not loaded from a "
                "checkpoint with a tokenizer; allowed: a folder or a repository that has it"
            )
        return tuple(AutoTokenizer.from_pretrained(name) for name in (self.tokenizer, self.clip))

    @torch.no_grad()
    def fit(self, states: torch.Tensor, questions: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Cosine of each patch and the question about its image, `[tiles, length]`.

        Parameters
        ----------
        states : torch.Tensor
            `[tiles, length, channels]` of the vision tower.
        questions : list[torch.LongTensor]
            `[tokens]` of each image.
        image : torch.LongTensor
            `[tiles]`, the image of each.

        Raises
        ------
        ValueError
            If no text follows an image, or CLIP's tower has another width.
        """
        clip = self._model.to(states.device)
        if clip.visual_projection.in_features != states.shape[-1]:
            raise ValueError(
                f"token_reduction: clip={self.clip!r} projects {clip.visual_projection.in_features} channels, and the "
                f"vision tower has {states.shape[-1]}; allowed: the CLIP that the tower is from"
            )
        patches = clip.visual_projection(clip.vision_model.post_layernorm(states.float()))
        texts, owner = self._embedded(questions, states.device)
        similarity = torch.nn.functional.normalize(patches, dim=-1) @ texts.T
        own = (owner == image.to(owner.device).unsqueeze(-1)).to(similarity).unsqueeze(1)
        return (similarity * own).sum(-1) / own.sum(-1)

    def _embedded(self, questions: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit embeddings `[segments, channels]`, and the question of each; long ones have several segments."""
        ours, theirs = self._tokenizers
        if any(len(question) == 0 for question in questions):
            raise ValueError("cdpruner rates images by the text that follows them: the prompt must not end in an image")
        segments = theirs(
            [ours.decode(question, skip_special_tokens=True).strip() for question in questions],
            max_length=self._model.config.text_config.max_position_embeddings,
            truncation=True,
            return_overflowing_tokens=True,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(device)
        inputs = {name: segments[name] for name in ("input_ids", "attention_mask")}
        texts = self._model.text_projection(self._model.text_model(**inputs).pooler_output)
        return torch.nn.functional.normalize(texts, dim=-1), segments["overflow_to_sample_mapping"]
