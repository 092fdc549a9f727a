"""Image features of models that read tiles with one tower, with a stage inside it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults

from ..ops.eager_parts import compiling, of_any_length, on_host, part_by_part_under
from .applying import check_stages
from .decoder_options import setting
from .options import Options
from .reducer import Host, TokenReducer
from .staged_clip import StagedCLIPVisionModel, StagedVisionOutput, reads_tower, shown_cells
from .staged_decoder import staged_decoder
from .staged_vlm import StagedVlm
from .tile_layout import Tiles, anyres_layout, pack_flat
from .vision_inputs import check_features, check_questions, feature_layers, last_read
from .visual_tokens import VisualTokens, images_of_rows, texts_behind

CLIP = "clip_vision_model"


@dataclass
class TokenDropImageOutput(BaseModelOutputWithPooling):
    """Image features and where each row comes from.

    Attributes
    ----------
    visual_tokens : list[VisualTokens]
        One entry per image, a row per row of `pooler_output`.
    """

    visual_tokens: list | None = None


class TiledFeatures(StagedVlm):
    """Replaces `get_image_features` of LLaVA and its like; comes before the stock class in a class's bases.

    An image is one tile of the tower, unless a class says otherwise in :meth:`tiling`.
    """

    image_inputs = ("image_sizes", "vision_feature_layer", "vision_feature_select_strategy")
    projector_class: ClassVar[type]

    def __init__(self, config):
        PreTrainedModel.__init__(self, config)
        self.token_reducer = self.build_reducer(self.config_class.reduction_of(config))
        clip = config.vision_config.model_type == CLIP
        self.vision_tower: Any = (StagedCLIPVisionModel if clip else AutoModel.from_config)(config.vision_config)
        self.multi_modal_projector = self.projector_class(config)
        self.language_model = staged_decoder(config.text_config)

    def build_reducer(self, options: Options) -> TokenReducer:
        """The reducer of checked options.

        Raises
        ------
        ValueError
            If a stage of the method can't act in the model, or it needs a CLS token that there is none of.
        """
        text_config, vision_config = self.config.text_config, self.config.vision_config
        layers, blocks = text_config.num_hidden_layers, vision_config.num_hidden_layers
        read = last_read(self.config.vision_feature_layer, blocks) - 1
        sizes = (layers, text_config.hidden_size, vision_config.image_size, blocks)
        host = Host(*sizes, feature_block=read, checkpoint=self.config.name_or_path)
        reducer = self.config_class.reduction_class.build(options, host)
        places = {"vision": blocks, "features": 0, "decoder": layers, "decode": layers}
        check_stages(reducer, places, ("cls_attention", "questions"))
        method, tower = options.method, vision_config.model_type
        if reads_tower(reducer) and tower != CLIP:
            raise ValueError(
                f"method={method!r} needs a vision tower with a CLS token; allowed: {CLIP!r}, got {tower!r}"
            )
        if reads_tower(reducer) and self.config.vision_feature_select_strategy != "default":
            raise ValueError(f"method={method!r} needs vision_feature_select_strategy='default'")
        return reducer

    def tiling(self, pixel_values: torch.Tensor, image_sizes: Any) -> tuple[list[int], Callable[..., list]]:
        """Say how images are cut and joined.

        Parameters
        ----------
        pixel_values : torch.FloatTensor
            As :meth:`get_image_features` takes them.
        image_sizes : torch.LongTensor or list
            Likewise.

        Returns
        -------
        tuple[list[int], Callable]
            Tiles of each image, and from features per image, `[tiles, cells, channels]` each, to rows per image,
            `[placeholders, channels]` each; takes the row of a newline as a second argument.

        Raises
        ------
        ValueError
            If they have another form.
        """
        if pixel_values.dim() != 4:
            raise ValueError(f"pixel_values of shape {tuple(pixel_values.shape)}, expected 4 dimensions")
        return [1] * len(pixel_values), pack_flat

    @part_by_part_under(merge_with_config_defaults, can_return_tuple)
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        images_per_request: list[int] | None = None,
        questions: list[torch.Tensor] | None = None,
        **kwargs,
    ) -> TokenDropImageOutput:
        """Encode images. The number of rows is that of the placeholders; merged values stand in their slots.

        Parameters
        ----------
        pixel_values : torch.FloatTensor
            `[tiles, 3, height, width]`, or with several tiles of an image `[images, tiles, 3, height, width]`.
        image_sizes : torch.LongTensor, optional
            `[images, 2]`, height and width before preprocessing, or a list of pairs, for models that cut images.
        vision_feature_layer : int or list[int], optional
            Default: the checkpoint's. As many as the projector reads.
        vision_feature_select_strategy : {"default"}, optional
            Default: the checkpoint's.
        images_per_request : list[int], optional
            Images of each sequence, over which `scope="request"` shares a budget; default: one each.
        questions : list[torch.LongTensor], optional
            For each image the ids, `[tokens]`, of the text that asks about it, for methods that read it in the tower.

        Returns
        -------
        TokenDropImageOutput
            `pooler_output`: per image `[placeholders, text channels]`; `visual_tokens`: their provenance.

        Raises
        ------
        ValueError
            If arguments are of another shape or number, or name what the model does not have, or the method reads
            questions and there are none.
        """
        tiles_per_image, pack, layout = self._layout(pixel_values, image_sizes)
        check_features(vision_feature_select_strategy, images_per_request, len(layout))
        check_questions(self.used_reducer, questions, len(layout))
        pixel_values, layers = self._tower_inputs(pixel_values, tiles_per_image, vision_feature_layer)
        tiles = self._tiles(layout, tiles_per_image, images_per_request, pixel_values.device)
        if tiles is None:
            return self._image_output(self._plain_features(pixel_values, layers), tiles_per_image, pack, layout)
        providers = {"tiles": lambda: tiles, "questions": lambda: questions}
        vision = self.vision_tower.forward_staged(pixel_values, layers, self.used_reducer, **providers)
        patches = vision.features[:, 1:]
        if compiling():
            of_any_length(1, patches)
        features, layout = self._laid_back(vision, self.multi_modal_projector(patches), tiles, layout)
        return self._image_output(features, tiles_per_image, pack, layout)

    @on_host
    def _layout(self, pixel_values: torch.Tensor, image_sizes: Any) -> tuple[list[int], Callable, list[VisualTokens]]:
        """What :meth:`tiling` says, and where each packed row comes from."""
        tiles_per_image, pack = self.tiling(pixel_values, image_sizes)
        return tiles_per_image, pack, anyres_layout(pack, tiles_per_image, self._side)

    @on_host
    def _tower_inputs(self, pixel_values, tiles_per_image: list[int], layers) -> tuple[torch.Tensor, list[int]]:
        """Pixels `[tiles, 3, height, width]`, and hidden states of the tower whose features are wanted."""
        if pixel_values.dim() == 5:
            pixel_values = torch.cat([tiles[:n] for tiles, n in zip(pixel_values, tiles_per_image, strict=True)])
        tower, projected = self.config.vision_config, self.multi_modal_projector.linear_1.in_features
        return pixel_values, feature_layers(layers, tower.num_hidden_layers, tower.hidden_size, projected)

    def _plain_features(self, pixel_values: torch.Tensor, layers: list[int]) -> torch.Tensor:
        """Projected patches `[tiles, cells, channels]` of a stock tower."""
        states = self.vision_tower(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        return self.multi_modal_projector(torch.cat([states[layer] for layer in layers], dim=-1)[:, 1:])

    @on_host
    def _image_output(self, features, tiles_per_image, pack: Callable, tokens: list) -> TokenDropImageOutput:
        """Pack features `[tiles, cells, channels]`."""
        there = [image.map(lambda values: values.to(features.device)) for image in tokens]
        return TokenDropImageOutput(pooler_output=pack(torch.split(features, tiles_per_image)), visual_tokens=there)

    @on_host
    def _laid_back(
        self, vision: StagedVisionOutput, features: torch.Tensor, tiles: Tiles, layout: list[VisualTokens]
    ) -> tuple[torch.Tensor, list[VisualTokens]]:
        """Lay what the tower left back on the tiles' cells, with what is known of it."""
        alive = tiles.alive
        cells = shown_cells(vision, alive)
        tile, entry = (cells >= 0).nonzero(as_tuple=True)
        cell = cells[tile, entry]

        def laid(values: torch.Tensor, empty: float = 0) -> torch.Tensor:
            dense = values.new_full((*alive.shape, *values.shape[2:]), empty)
            dense[tile, cell] = values[tile, entry]
            return dense

        present, dense = laid(cells >= 0), laid(features)
        tokens = reduce(VisualTokens.append, layout).map(lambda values: values.to(features.device))
        if "order" in vision.carry:
            order = laid(vision.carry["order"], float("inf")).argsort(dim=-1, stable=True)
            dense = dense.gather(1, order.unsqueeze(-1).expand_as(dense))
            tokens = tokens.map(lambda values: values.view(order.shape).gather(1, order).flatten())
        place, patch = self._place(tokens, tiles.image), ~tokens.newline
        carry = {name: laid(values)[place] * patch for name, values in vision.carry.items() if name != "order"}
        tokens = replace(tokens, present=present[place] | tokens.newline, carry=carry)
        return dense, tokens.split([len(image) for image in layout])

    @on_host
    def of_requests(
        self, ids: torch.Tensor | None, pixel_values: torch.Tensor, image_sizes: Any = None, prompt: int | None = None
    ) -> dict[str, Any]:
        """What `get_image_features` takes of sequences `ids [batch, length]`, where the method or a budget reads it.

        The first `prompt` tokens are the prompt, of which questions are parts; None: all.
        """
        reads_images = setting(self.used_reducer.options, "scope") == "request"
        reads_questions = "questions" in self.used_reducer.needs
        if ids is None or not (reads_images or reads_questions):
            return {}
        placeholders = ids == self.config.image_token_id
        _, _, layout = self._layout(pixel_values, image_sizes)
        images = images_of_rows([len(image) for image in layout], placeholders.sum(-1).tolist())
        found: dict[str, Any] = {"images_per_request": images} if reads_images else {}
        if reads_questions:
            found["questions"] = texts_behind(ids[:, :prompt], placeholders[:, :prompt], images)
        return found

    @property
    def _side(self) -> int:
        return self.config.vision_config.image_size // self.config.vision_config.patch_size

    def _place(self, tokens: VisualTokens, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each token's tile among all, which belong to `image [tiles]`, and its cell; a newline's are no place."""
        cell = (tokens.row * self._side + tokens.column).masked_fill(tokens.newline, 0)
        return torch.searchsorted(image, tokens.image) + tokens.tile, cell

    @on_host
    def _tiles(self, layout: list[VisualTokens], tiles_per_image, images_per_request, device) -> Tiles | None:
        """What a method may know of the tiles; None where it has no stage in the tower."""
        if not reads_tower(self.used_reducer):
            return None
        tokens, image = reduce(VisualTokens.append, layout), torch.repeat_interleave(torch.tensor(tiles_per_image))
        tile, cell = self._place(tokens, image)
        patch, lines_before = ~tokens.newline, tokens.newline.long().cumsum(0)
        alive = torch.zeros(sum(tiles_per_image), self._side**2, dtype=torch.bool)
        alive[tile[patch], cell[patch]] = True
        line = torch.full(alive.shape, -1)
        line[tile[patch], cell[patch]] = torch.where(tokens.line >= 0, lines_before, -1)[patch]
        requests = torch.repeat_interleave(torch.tensor(images_per_request or [1] * len(tiles_per_image)))
        return Tiles(
            grid=(self._side, self._side),
            alive=alive,
            image=image,
            request=requests[image],
            line=line,
            line_owner=tile[~patch],
            num_layers=self.config.text_config.num_hidden_layers,
        ).to(device)
