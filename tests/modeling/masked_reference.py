"""A reference that never drops anything: stock layers on the whole sequence, under masks.

It is told, per prompt, which tokens each stage kept, and masks the others; a merged window is written into its slot
and its other members are masked. Nothing here is shared with the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lmms_tokendrop.modeling.core.transformers_compat import cache_of


@dataclass
class Turn:
    """A part of the sequence that was prefilled at once.

    Attributes
    ----------
    start, stop : int
        Columns of the whole sequence.
    kept : list[torch.Tensor]
        Per decoder layer `[batch, whole length]`, True for this turn's tokens that the layer received.
    left : list[torch.Tensor]
        Per decoder layer, the same for what later tokens see of this turn.
    """

    start: int
    stop: int
    kept: list[torch.Tensor]
    left: list[torch.Tensor]


def turns_from_records(records, bounds, length: int, layers: int, batch: int, compacted_from: int = 0) -> list[Turn]:
    """Read turns off what the stages recorded. `bounds` are the turns' `(start, stop, has_images)`."""
    pending, turns = list(records), []
    for start, stop, has_images in bounds:
        every = torch.zeros(batch, length, dtype=torch.bool)
        every[:, start:stop] = True
        current, stages = every, {}
        while has_images and pending and layer_before(pending[0]) not in stages:
            record = pending.pop(0)
            stages[layer_before(record)] = as_mask(record, length)
        kept = []
        for layer in range(layers):
            current = stages.get(layer - 1, current)
            kept.append(current)
        final = stages.get(layers - 1, current)
        left = [final if layer >= compacted_from else kept[layer] for layer in range(layers)]
        turns.append(Turn(start, stop, kept, left))
    assert not pending
    return turns


def layer_before(record) -> int:
    """The layer that a stage follows, -1 for the place before the first."""
    return -1 if record.name == "before layer 0" else int(record.name.split()[-1])


def as_mask(record, length: int) -> torch.Tensor:
    """`[batch, length]`, True for the tokens of a stage's record."""
    mask = torch.zeros(record.index.shape[0], length + 1, dtype=torch.bool)
    mask.scatter_(1, record.index.masked_fill(record.index < 0, length), True)
    return mask[:, :length]


def decoder_visibility(turns: list[Turn], valid: torch.Tensor, layers: int) -> list[torch.Tensor]:
    """Per layer `[batch, queries, keys]`, what each token of the whole sequence sees."""
    batch, length = valid.shape
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = []
    for layer in range(layers):
        keys = torch.ones(batch, length, length, dtype=torch.bool)
        for turn in turns:
            columns = slice(turn.start, turn.stop)
            keys[:, turn.start : turn.stop, columns] = turn.kept[layer][:, None, columns]
            keys[:, turn.stop :, columns] = turn.left[layer][:, None, columns]
        visible.append(keys & causal & valid[:, None, :])
    return visible


def four_dimensional(visible: torch.Tensor, attention: str) -> torch.Tensor:
    """`[batch, 1, queries, keys]` for a backend; a token always sees itself, so that no row is empty."""
    visible = (visible | torch.eye(visible.shape[-1], dtype=torch.bool)).unsqueeze(1)
    if attention == "sdpa":
        return visible
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


@torch.no_grad()
def decoder_logits(stock, embeds, position_ids, visible, attention: str, watch=None) -> torch.Tensor:
    """Logits `[batch, length, vocabulary]`; `position_ids` may be one per layer."""
    decoder = stock.model.language_model
    states = embeds
    for number, layer in enumerate(decoder.layers):
        positions = position_ids[number] if isinstance(position_ids, list) else position_ids
        hook = None
        if watch is not None:
            hook = layer.self_attn.register_forward_hook(
                lambda module, args, output, number=number: watch(number, output[1])
            )
        states = layer(
            states,
            attention_mask=four_dimensional(visible[number], attention),
            position_embeddings=decoder.rotary_emb(states, position_ids=positions),
        )
        if hook is not None:
            hook.remove()
    return stock.lm_head(decoder.norm(states))


@torch.no_grad()
def image_features(stock, inputs: dict, survivors: list[torch.Tensor] | None, attention: str) -> list[torch.Tensor]:
    """Stock features per image; windows whose slot alone survived are merged after block 0, their members masked.

    `survivors` are, per image, which packed tokens were left before the first decoder layer.
    """
    config = stock.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    pixels, tiles = inputs["pixel_values"], [1] * len(inputs["pixel_values"])
    if "image_sizes" in inputs:
        tiles = [count_tiles(config, size) for size in inputs["image_sizes"].tolist()]
        pixels = torch.cat([image[:count] for image, count in zip(pixels, tiles, strict=True)])
    tower = stock.model.vision_tower
    states = tower.pre_layrnorm(tower.embeddings(pixels))
    present = torch.ones(len(states), side * side, dtype=torch.bool)
    mask = None
    for number, block in enumerate(tower.encoder.layers[:-1]):
        states = block(states, mask)
        if number == 0 and survivors is not None:
            alive, survived = spread(stock, inputs, tiles, survivors, side)
            states, present = merge_in_place(states, alive, survived, side)
            visible = torch.cat([torch.ones(len(states), 1, dtype=torch.bool), present], dim=1)
            mask = four_dimensional(visible[:, None, :].expand(-1, side * side + 1, -1), attention)
    projected = stock.model.multi_modal_projector(states[:, 1:])
    return packed(stock, inputs, torch.split(projected, tiles), getattr(stock.model, "image_newline", None))


def packed(stock, inputs: dict, features: tuple[torch.Tensor, ...], newline: torch.Tensor | None) -> list[torch.Tensor]:
    """Rows per image from features per image, `[tiles, cells, channels]`; a model that cuts no images has one tile."""
    if "image_sizes" not in inputs:
        return [image.flatten(0, 1) for image in features]
    return stock.model.pack_image_features(features, inputs["image_sizes"], "default", newline)[0]


def count_tiles(config, size: list[int]) -> int:
    """Tiles of an image, by the resolution that fits it best."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)


def spread(stock, inputs: dict, tiles: list[int], survivors: list[torch.Tensor], side: int):
    """From packed tokens back to `[tiles, cells]`: which cells the packing uses, and which of them survived."""
    total = sum(tiles)
    marks = torch.arange(total * side * side, dtype=torch.double).view(total, side * side, 1)
    newline = torch.full((1,), -1.0, dtype=torch.double)
    rows = packed(stock, inputs, torch.split(marks, tiles), newline)
    alive = torch.zeros(total * side * side, dtype=torch.bool)
    survived = torch.zeros_like(alive)
    for cells, stays in zip(rows, survivors, strict=True):
        cells = cells.flatten().long()
        patches = cells >= 0
        alive[cells[patches]] = True
        survived[cells[patches & stays]] = True
    return alive.view(total, -1), survived.view(total, -1)


def merge_in_place(states, alive, survived, side: int):
    """Write the mean of each merged window into the cell that survived."""
    states, present = states.clone(), torch.ones_like(alive)
    for tile in range(len(states)):
        for top in range(0, side - side % 3, 3):
            for left in range(0, side - side % 3, 3):
                cells = [(top + i) * side + left + j for i in range(3) for j in range(3)]
                members = [cell for cell in cells if alive[tile, cell]]
                left_over = [cell for cell in members if survived[tile, cell]]
                if len(left_over) == len(members):
                    continue
                assert len(left_over) == 1, "a merged window keeps one slot"
                slot = left_over[0]
                states[tile, 1 + slot] = states[tile, [1 + cell for cell in members]].mean(0)
                present[tile, cells] = False
                present[tile, slot] = True
    return states, present


@torch.no_grad()
def embed(stock, input_ids: torch.Tensor, features: list[torch.Tensor] | None) -> torch.Tensor:
    """Token embeddings with image features at the placeholders."""
    embeds = stock.get_input_embeddings()(input_ids)
    if features is None:
        return embeds
    mask = (input_ids == stock.config.image_token_id).unsqueeze(-1).expand_as(embeds)
    return embeds.masked_scatter(mask, torch.cat(features))


def survivors_per_image(first_record, input_ids: torch.Tensor, image_token: int, lengths: list[int]):
    """Per image, which of its packed tokens the stage before the first layer left."""
    kept = as_mask(first_record, input_ids.shape[1])
    return list(torch.split(kept[input_ids == image_token], lengths))


@dataclass
class Chunk:
    """A prefilled part of the sequence: its columns, and the inputs of its images if it has any."""

    start: int
    stop: int
    images: dict | None


def masked_logits(
    stock, whole, valid, records, chunks, attention, compacted_from=0, positions=None, windows=True
) -> torch.Tensor:
    """Logits `[batch, length, vocabulary]` of the whole sequence; what is in no chunk was generated.

    `positions` maps `(turns, valid, layers)` to position ids per layer; the default is the unreduced model's. `windows`
    says whether what left before the first layer, where more leaves later, merged in the tower.
    """
    layers = len(stock.model.language_model.layers)
    bounds = [(chunk.start, chunk.stop, chunk.images is not None) for chunk in chunks]
    turns = turns_from_records(records, bounds, whole.shape[1], layers, len(whole), compacted_from)
    merges = windows and any(record.name != "before layer 0" for record in records)
    features: list[torch.Tensor] = []
    first_records = iter([record for record in records if record.name == "before layer 0"])
    per_chunk = []
    for chunk in chunks:
        if chunk.images is None:
            continue
        plain = image_features(stock, chunk.images, None, attention)
        record = next(first_records, None)
        if record is None or not merges:
            per_chunk.append(plain)
            continue
        ids = torch.full_like(whole, -1)
        ids[:, chunk.start : chunk.stop] = whole[:, chunk.start : chunk.stop]
        survivors = survivors_per_image(record, ids, stock.config.image_token_id, [len(image) for image in plain])
        per_chunk.append(image_features(stock, chunk.images, survivors, attention))
    assert len(per_chunk) <= 1 or len(whole) == 1, "several turns with images: one row at a time"
    features = [image for images in per_chunk for image in images]
    visible = decoder_visibility(turns, valid, layers)
    position_ids = (valid.long().cumsum(-1) - 1).clamp_min(0)
    if positions is not None:
        position_ids = positions(turns, valid, layers)
    return decoder_logits(stock, embed(stock, whole, features or None), position_ids, visible, attention)


def masked_generation(stock, inputs: dict, output, attention: str, **options):
    """Logits that a generation should have had, `[batch, steps, vocabulary]`, given its tokens and kept sets."""
    prompt = inputs["input_ids"].shape[1]
    whole = output.sequences[:, :-1]
    valid = torch.ones(whole.shape, dtype=torch.bool)
    valid[:, :prompt] = inputs["attention_mask"].bool()
    chunk = Chunk(0, prompt, inputs if "pixel_values" in inputs else None)
    logits = masked_logits(stock, whole, valid, cache_of(output).records, [chunk], attention, **options)
    return logits[:, prompt - 1 :]
