"""Image features of models that read tiles with one tower, with a stage inside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults

from ..ops.eager_parts import compiling, of_any_length, on_host, part_by_part_under
from .decoder_options import setting
from .reducer import Host, TokenReducer, check_stages
from .staged_clip import StagedCLIPVisionModel, StagedVisionOutput, reads_tower, shown_cells
from .staged_vlm import StagedVlm
from .tile_layout import NEWLINE, AnyresLayout, TiledImages, Tiles, anyres_layout, pack_flat
from .token_drop_config import TokenDropConfig
from .vision_inputs import check_features, feature_layers, last_read
from .visual_tokens import VisualTokens


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
    vision_tower: Any
    multi_modal_projector: Any

    def build_reducer(self, config_class: type[TokenDropConfig]) -> TokenReducer:
        """The method that the configuration, of the architecture's class or of the stock one, names.

        Raises
        ------
        ValueError
            If an option is wrong, or a stage of the method can't act in the model.
        """
        text_config, vision_config = self.config.text_config, self.config.vision_config
        layers, blocks = text_config.num_hidden_layers, vision_config.num_hidden_layers
        read = last_read(self.config.vision_feature_layer, blocks) - 1
        host = Host(layers, text_config.hidden_size, vision_config.image_size, blocks, feature_block=read)
        reducer = config_class.reduction_class.build(config_class.reduction_of(self.config), host)
        check_stages(
            reducer, {"vision": blocks, "features": 0, "decoder": layers, "decode": layers}, ("cls_attention",)
        )
        return reducer

    def build_tower(self) -> nn.Module:
        """The vision tower of the configuration, with stages if the reducer, built before, has one in there.

        Raises
        ------
        ValueError
            If the reducer needs a CLS token, and the tower or the features have none to read.
        """
        config, vision_config = self.config, self.config.vision_config
        if not reads_tower(self.token_reducer):
            return AutoModel.from_config(vision_config)
        method = self.token_reducer.options.method
        if vision_config.model_type != "clip_vision_model":
            raise ValueError(
                f"method={method!r} needs a vision tower with a CLS token; allowed: 'clip_vision_model', "
                f"got {vision_config.model_type!r}"
            )
        if config.vision_feature_select_strategy != "default":
            raise ValueError(f"method={method!r} needs vision_feature_select_strategy='default'")
        return StagedCLIPVisionModel(vision_config)

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

        Returns
        -------
        TokenDropImageOutput
            `pooler_output`: per image `[placeholders, text channels]`; `visual_tokens`: their provenance.

        Raises
        ------
        ValueError
            If arguments are of another shape or number, or name what the model does not have.
        """
        images = self._tiled(
            pixel_values, image_sizes, vision_feature_layer, vision_feature_select_strategy, images_per_request
        )
        if images.tiles is None:
            return self._plain_output(images, self._plain_features(images, vision_feature_select_strategy))
        vision = self.vision_tower.forward_staged(
            images.pixel_values, images.layers, self.token_reducer, tiles=lambda: images.tiles
        )
        patches = vision.features[:, 1:]
        if compiling():
            of_any_length(1, patches)
        return self._staged_output(images, vision, self.multi_modal_projector(patches))

    @on_host
    def _tiled(self, pixel_values, image_sizes, layers, strategy: str | None, images_per_request) -> TiledImages:
        """Check images and lay them out."""
        tiles_per_image, pack = self.tiling(pixel_values, image_sizes)
        check_features(strategy, images_per_request, len(tiles_per_image))
        layout = anyres_layout(pack, tiles_per_image, self._side**2)
        if pixel_values.dim() == 5:
            pixel_values = torch.cat(
                [tiles[:count] for tiles, count in zip(pixel_values, tiles_per_image, strict=True)]
            )
        tower, projector = self.config.vision_config, self.multi_modal_projector
        layers = feature_layers(layers, tower.num_hidden_layers, tower.hidden_size, projector.linear_1.in_features)
        tiles = None
        if reads_tower(self.token_reducer):
            tiles = self._tiles(layout, tiles_per_image, images_per_request, pixel_values.device)
        return TiledImages(pixel_values, layers, tiles_per_image, layout, pack, tiles)

    def _plain_features(self, images: TiledImages, strategy: str | None) -> torch.Tensor:
        """The stock model's projected features, `[tiles, cells, channels]`."""
        states = self.vision_tower(images.pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        wanted = [states[layer] for layer in images.layers]
        selected = torch.cat(wanted, dim=-1) if len(wanted) > 1 else wanted[0]
        return self.multi_modal_projector(selected[:, 1:] if strategy == "default" else selected)

    @on_host
    def _plain_output(self, images: TiledImages, features: torch.Tensor) -> TokenDropImageOutput:
        packed = images.pack(torch.split(features, images.tiles_per_image))
        return TokenDropImageOutput(
            pooler_output=packed, visual_tokens=self._provenance(images.layout, features.device)
        )

    @on_host
    def _staged_output(self, images: TiledImages, vision: StagedVisionOutput, features) -> TokenDropImageOutput:
        """Lay what the tower left back on the tiles' cells, with what is known of it."""
        alive = images.tiles.alive
        cells = shown_cells(vision, alive)
        tile, entry = (cells >= 0).nonzero(as_tuple=True)
        cell = cells[tile, entry]

        def laid(values: torch.Tensor, empty: float = 0) -> torch.Tensor:
            dense = values.new_full((*alive.shape, *values.shape[2:]), empty)
            dense[tile, cell] = values[tile, entry]
            return dense

        present, dense = laid(cells >= 0), laid(features)
        carry = {name: laid(values) for name, values in vision.carry.items() if name != "order"}
        tokens = self._provenance(images.layout, features.device, present, carry)
        if "order" in vision.carry:
            order = laid(vision.carry["order"], float("inf")).argsort(dim=-1, stable=True)
            dense = dense.gather(1, order.unsqueeze(-1).expand_as(dense))
            orders = torch.split(order, images.tiles_per_image)
            tokens = [
                image.map(lambda values, order=order: values.view(order.shape).gather(1, order).flatten())
                for image, order in zip(tokens, orders, strict=True)
            ]
        packed = images.pack(torch.split(dense, images.tiles_per_image))
        return TokenDropImageOutput(pooler_output=packed, visual_tokens=tokens)

    def images_per_request(self, placeholders: torch.Tensor, pixel_values, image_sizes=None) -> list[int] | None:
        """Images of each sequence, told from its placeholders `[batch, length]`; None where no budget needs it."""
        if setting(self.token_reducer.options, "scope") != "request":
            return None
        tiles_per_image, pack = self.tiling(pixel_values, image_sizes)
        lengths = [len(tile) for tile in anyres_layout(pack, tiles_per_image, self._side**2).tiles]
        totals = placeholders.sum(-1).tolist()
        if sum(totals) != sum(lengths):
            raise ValueError(f"Image features and image tokens do not match, tokens: {totals}, features: {lengths}")
        counts, taken = [], iter(lengths)
        for total in totals:
            counts.append(0)
            while total > 0:
                total -= next(taken)
                counts[-1] += 1
        return counts

    @property
    def _side(self) -> int:
        return self.config.vision_config.image_size // self.config.vision_config.patch_size

    def _tiles(self, layout: AnyresLayout, tiles_per_image, images_per_request, device) -> Tiles:
        total, cells = sum(tiles_per_image), self._side**2
        alive = torch.zeros(total, cells, dtype=torch.bool)
        line = torch.full((total, cells), -1)
        owners, first_line = [], 0
        parts = zip(layout.tiles, layout.cells, layout.lines, layout.first_tile, strict=True)
        for tiles, image_cells, lines, first in parts:
            patch = image_cells != NEWLINE
            alive[tiles[patch] + first, image_cells[patch]] = True
            line[tiles[patch] + first, image_cells[patch]] = torch.where(lines >= 0, lines + first_line, lines)[patch]
            owners.append((tiles + first)[~patch])
            first_line += int((~patch).sum())
        image = torch.repeat_interleave(torch.arange(len(tiles_per_image)), torch.tensor(tiles_per_image))
        requests = torch.arange(len(tiles_per_image))
        if images_per_request is not None:
            requests = torch.repeat_interleave(torch.arange(len(images_per_request)), torch.tensor(images_per_request))
        return Tiles(
            grid=(self._side, self._side),
            alive=alive.to(device),
            image=image.to(device),
            request=requests[image].to(device),
            line=line.to(device),
            line_owner=torch.cat(owners).to(device),
            num_layers=self.config.text_config.num_hidden_layers,
        )

    def _provenance(self, layout: AnyresLayout, device, present=None, carry=None) -> list[VisualTokens]:
        """Provenance of each image's rows; `present` and `carry` are `[tiles, cells]`, what the tower found."""
        side, images = self._side, []
        for number, (tile, cell) in enumerate(zip(layout.tiles, layout.cells, strict=True)):
            tile, cell, line = tile.to(device), cell.to(device), layout.lines[number].to(device)
            newline = cell == NEWLINE
            place = (tile + layout.first_tile[number], cell.clamp_min(0))
            row = torch.cat([cell.new_full((1,), -1), cell[:-1]]) // side
            images.append(
                VisualTokens(
                    image=torch.full_like(tile, number),
                    tile=tile,
                    row=torch.where(newline, row, cell // side),
                    column=torch.where(newline, side, cell % side),
                    line=line,
                    newline=newline,
                    present=torch.ones_like(newline) if present is None else present[place] | newline,
                    carry={name: values[place] * ~newline for name, values in (carry or {}).items()},
                )
            )
        return images
