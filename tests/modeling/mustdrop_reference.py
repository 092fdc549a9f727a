"""MustDrop written out: stock layers on the whole sequence, plain loops over tiles, windows and tokens.

Nothing ever leaves the sequence; what the method drops is masked. Every decision is taken here, from stock hidden
states and stock attention weights. Nothing is shared with the code under test, and nothing that it recorded is read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

import torch
from masked_reference import count_tiles, embed, four_dimensional

WINDOW = 3
NEWLINE = -1
NEVER = 1e18


class UnreachableError(Exception):
    """No merging makes room for the budget; `smallest` is the average that can be reached."""

    def __init__(self, smallest: float):
        super().__init__(smallest)
        self.smallest = smallest


@dataclass(eq=False)
class Token:
    """An image token.

    Attributes
    ----------
    place : int
        In the unreduced sequence.
    image, tile : int
        Its image, and its tile among all images' tiles; a newline has the tile that it ends.
    cell : int
        Patch of the tile, or `NEWLINE`.
    line : int or None
        Place of the newline that ends its row of the image, if one does.
    key : bool
        Whether it never leaves.
    cls_attention : float
        Head-mean attention that CLS gives it in the last vision block.
    """

    place: int
    image: int
    tile: int
    cell: int
    line: int | None = None
    key: bool = False
    cls_attention: float = 0.0

    @property
    def newline(self) -> bool:
        return self.cell == NEWLINE


class MustDropReference:
    """One prompt.

    Parameters
    ----------
    stock : LlavaNextForConditionalGeneration
        The stock model, with attention that gives its weights.
    options : dict
        Options of the method. Those that this file reads by `[]` are stated.
    inputs : dict
        Inputs of the stock model for one prompt.
    """

    def __init__(self, stock, options: dict, inputs: dict):
        self.stock, self.inputs = stock, inputs
        self.options = {"visual_tokens": None, "keep_ratio": None, "counter": "input", "scope": "image", **options}
        self.depth = len(stock.model.language_model.layers)
        self.drop_layers = options["layers"] or default_layers(self.depth)
        self.by_threshold = "global_threshold" in options or "individual_threshold" in options
        self.side = stock.config.vision_config.image_size // stock.config.vision_config.patch_size
        self.tiles = [count_tiles(stock.config, size) for size in inputs["image_sizes"].tolist()]
        self.tokens = self.read_layout()
        self.forced_merges = 0
        self.received: list[set[int]] = []
        self.survivors: set[int] = set()

    @torch.no_grad()
    def generate(self, steps: int) -> tuple[torch.Tensor, list[int]]:
        """Logits of the prefill and of `steps - 1` greedy steps, `[steps, vocabulary]`, and the tokens they choose."""
        features, gone = self.encode()
        embeds = embed(self.stock, self.inputs["input_ids"], features)
        states = self.prefill(embeds, gone)
        logits = [self.last_logits(states)]
        for _ in range(steps - 1):
            token = logits[-1].argmax().view(1, 1)
            embeds = torch.cat([embeds, embed(self.stock, token, None)], dim=1)
            logits.append(self.last_logits(self.decode(embeds)))
        return torch.stack(logits), [int(row.argmax()) for row in logits]

    def last_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits `[vocabulary]` behind the last token."""
        return self.stock.lm_head(self.stock.model.language_model.norm(states))[0, -1]

    def read_layout(self) -> list[Token]:
        """The image tokens, from where stock packing puts the numbers of tiles and cells."""
        total, cells = sum(self.tiles), self.side**2
        numbers = torch.arange(total * cells, dtype=torch.double).view(total, cells, 1)
        packed = self.pack(numbers, torch.full((1,), float(NEWLINE), dtype=torch.double))
        places = (self.inputs["input_ids"][0] == self.stock.config.image_token_id).nonzero().flatten().tolist()
        tokens: list[Token] = []
        for image, image_numbers in enumerate(packed):
            first_tile, row = sum(self.tiles[:image]), []
            for number in image_numbers.flatten().long().tolist():
                place = places[len(tokens)]
                if number == NEWLINE:
                    tokens.append(Token(place, image, row[-1].tile, NEWLINE))
                    for token in row:
                        token.line = place
                    row = []
                else:
                    tokens.append(Token(place, image, number // cells, number % cells))
                    if number // cells > first_tile:
                        row.append(tokens[-1])
        return tokens

    def pack(self, features: torch.Tensor, newline: torch.Tensor) -> list[torch.Tensor]:
        """Stock packing of `[tiles, cells, channels]`."""
        return self.stock.model.pack_image_features(
            torch.split(features, self.tiles), self.inputs["image_sizes"], "default", newline
        )[0]

    # --- vision encoding

    @torch.no_grad()
    def encode(self) -> tuple[list[torch.Tensor], set[tuple[int, int]]]:
        """Packed features of each image, and the (tile, cell) that merging took away; marks the key tokens."""
        pixels = [tiles[:count] for tiles, count in zip(self.inputs["pixel_values"], self.tiles, strict=True)]
        tower = self.stock.model.vision_tower
        blocks = tower.encoder.layers
        states = blocks[0](tower.pre_layrnorm(tower.embeddings(torch.cat(pixels))), None)
        alive = self.alive_cells()
        gone = set()
        for tile, window in self.choose_merges(states[:, 1:], alive):
            members = [cell for cell in window if cell in alive[tile]]
            slot = slot_of(window, alive[tile])
            states[tile, 1 + slot] = states[tile, [1 + cell for cell in members]].mean(0)
            gone |= {(tile, cell) for cell in window if cell != slot}
        visible = torch.ones(len(states), self.side**2 + 1, dtype=torch.bool)
        for tile, cell in gone:
            visible[tile, 1 + cell] = False
        mask = four_dimensional(visible[:, None, :].expand(-1, visible.shape[1], -1), "eager")
        for block in blocks[1:-1]:
            states = block(states, mask)
        features = self.stock.model.multi_modal_projector(states[:, 1:])
        _, weights = run_with_weights(blocks[-1], states, mask)
        self.mark_key_tokens(weights[:, :, 0, 1:].mean(1), gone)
        return self.pack(features, self.stock.model.image_newline), gone

    def alive_cells(self) -> list[set[int]]:
        """Per tile, the cells that unpadding leaves."""
        alive: list[set[int]] = [set() for _ in range(sum(self.tiles))]
        for token in self.tokens:
            if not token.newline:
                alive[token.tile].add(token.cell)
        return alive

    def choose_merges(self, patches: torch.Tensor, alive: list[set[int]]) -> list[tuple[int, tuple[int, ...]]]:
        """(tile, window) of every window that merges."""
        scored: dict[object, list[tuple[float, int, tuple[int, ...]]]] = {}
        for token in self.tokens:
            scored.setdefault(self.group(token), [])
        group_of_tile = {token.tile: self.group(token) for token in self.tokens if not token.newline}
        for tile, group in group_of_tile.items():
            for window in windows(self.side):
                members = [cell for cell in window if cell in alive[tile]]
                if len(members) > 1:
                    scored[group].append((mean_cosine(patches[tile, members]), tile, window))
        merges = []
        for group, candidates in scored.items():
            order = sorted(candidates, key=lambda candidate: -candidate[0])
            similar = sum(score >= self.options["merge_threshold"] for score, *_ in order)
            count = similar if self.by_threshold else self.plan_merges(group, order, similar, alive)
            merges += [(tile, window) for _, tile, window in order[:count]]
        return merges

    def plan_merges(self, group, order, similar: int, alive: list[set[int]]) -> int:
        """How many windows of a group merge, from the most similar on."""
        members = [token for token in self.tokens if self.group(token) == group]
        counts, keys_left, least = [], [], []
        gone: set[tuple[int, int]] = set()
        for merge in (None, *order):
            if merge is not None:
                _, tile, window = merge
                gone |= {(tile, cell) for cell in window if cell != slot_of(window, alive[tile])}
            patches = [token for token in members if not token.newline and (token.tile, token.cell) not in gone]
            newlines = [token for token in members if token.newline and self.newline_stays(token, patches)]
            keys: Counter[int] = Counter()
            for (image, _), count in Counter((token.image, token.tile) for token in patches).items():
                keys[image] += key_count(count, self.options["key_ratio"])
            stays = sum(max(count, 1) for count in keys.values())
            further = {"drop": 0, "keep": len(newlines), "row": min(len(newlines), stays)}[self.options["newlines"]]
            counts.append(len(patches) + len(newlines))
            keys_left.append(stays)
            least.append(stays + further)
        target = self.target(members)
        free = max((merges for merges in range(similar + 1) if counts[merges] >= target), default=0)
        early = self.drop_layers[0] + (1 if self.options["counter"] == "input" else 0)
        averages, roomy = (
            [
                (early * count + (self.depth - early) * (stays + room * keys)) / self.depth
                for count, stays, keys in zip(counts, least, keys_left, strict=True)
            ]
            for room in (0, self.options["text_ratio"])
        )
        further_merges = range(free, len(counts))
        needed = [merges for merges in further_merges if averages[merges] <= target + 1e-9]
        if not needed:
            raise UnreachableError(min(averages))
        with_room = [merges for merges in further_merges if roomy[merges] <= target + 1e-9 and counts[merges] >= target]
        chosen = min(with_room or needed)
        self.forced_merges += chosen - free
        return chosen

    def mark_key_tokens(self, cls_attention: torch.Tensor, gone: set[tuple[int, int]]) -> None:
        """Key tokens of each tile: a share of what is left, by CLS attention."""
        for tile in range(sum(self.tiles)):
            left = [t for t in self.tokens if t.tile == tile and not t.newline and (tile, t.cell) not in gone]
            for token in left:
                token.cls_attention = float(cls_attention[tile, token.cell])
            left.sort(key=lambda token: -token.cls_attention)
            for token in left[: key_count(len(left), self.options["key_ratio"])]:
                token.key = True

    # --- prefilling and decoding

    def prefill(self, embeds: torch.Tensor, gone: set[tuple[int, int]]) -> torch.Tensor:
        """Last states of the prompt; finds what each layer receives, and what is left in the end."""
        patches = [token for token in self.tokens if not token.newline and (token.tile, token.cell) not in gone]
        states, present = embeds, self.with_text_and_newlines(patches)
        for number in range(self.depth):
            self.received.append(present)
            states, weights = self.run_layer(number, states, present)
            if number in self.drop_layers:
                present = self.filter(weights[0].mean(0).double(), present)
        self.survivors = present
        return states

    def decode(self, embeds: torch.Tensor) -> torch.Tensor:
        """Last states of the prompt and of what was generated, which sees what the cache kept."""
        states = embeds
        for number in range(self.depth):
            compacted = self.options["compact_first_layers"] or number >= 2
            states, _ = self.run_layer(number, states, self.survivors if compacted else self.received[number])
        return states

    def run_layer(self, number: int, states: torch.Tensor, cached: set[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer on the whole sequence: prompt tokens see what it received, generated ones what its cache kept."""
        prompt, length = self.inputs["input_ids"].shape[1], states.shape[1]
        visible = torch.zeros(length, length, dtype=torch.bool)
        visible[:prompt, sorted(self.received[number])] = True
        visible[prompt:, sorted(cached)] = True
        visible[prompt:, prompt:] = True
        positions = torch.arange(length).unsqueeze(0)
        return run_with_weights(
            self.stock.model.language_model.layers[number],
            states,
            attention_mask=four_dimensional(visible.tril().unsqueeze(0), "eager"),
            position_embeddings=self.stock.model.language_model.rotary_emb(states, position_ids=positions),
        )

    def filter(self, attention: torch.Tensor, present: set[int]) -> set[int]:
        """Places that stay after a layer with head-mean weights `attention [queries, keys]`."""
        tokens = [token for token in self.tokens if token.place in present]
        share, best, dual = self.scores(attention, tokens)
        if self.by_threshold:
            stays = [
                token
                for token in tokens
                if not token.newline
                and (
                    token.key
                    or share[token] >= self.options.get("global_threshold", NEVER)
                    or best[token] >= self.options.get("individual_threshold", NEVER)
                )
            ]
            for image in {token.image for token in tokens} - {token.image for token in stays}:
                stays.append(max((t for t in tokens if t.image == image and not t.newline), key=dual.__getitem__))
            return self.with_text_and_newlines(stays)
        stays = []
        for group in {self.group(token) for token in tokens}:
            stays += self.fill(group, [token for token in tokens if self.group(token) == group], dual)
        return self.with_text_and_newlines(stays)

    def scores(self, attention: torch.Tensor, tokens: list[Token]):
        """Each token's share of the text's attention to its image, its best text token's, and the dual score."""
        first = min(token.place for token in self.tokens)
        visual = {token.place for token in self.tokens}
        rows = attention[[row for row in range(first, len(attention)) if row not in visual]]
        share, best, dual = {}, {}, {}
        for image in {token.image for token in tokens}:
            own = [token for token in tokens if token.image == image]
            total = {token: float(rows[:, token.place].sum()) for token in own}
            best |= {token: float(rows[:, token.place].max()) for token in own}
            mass, best_mean = sum(total.values()), sum(best[token] for token in own) / len(own)
            for token in own:
                share[token] = total[token] / mass
                dual[token] = max(share[token] * len(own), best[token] / best_mean)
        return share, best, dual

    def fill(self, group, tokens: list[Token], dual: dict[Token, float]) -> list[Token]:
        """The patches of a group that stay below the budget: key tokens, then by dual score, while there is room.

        With `newlines="row"` the first patch of a row takes two places. Where that leaves one place over, it goes to
        the best patch that needs but one, or, if there is none, the last patch that brought no newline makes room. The
        best patch stays whatever it takes.
        """
        patches = [token for token in tokens if not token.newline]
        newlines = [token for token in tokens if token.newline]
        keys = [token for token in patches if token.key]
        least = sum(
            max(1, sum(token.key for token in patches if token.image == image))
            for image in {token.image for token in patches}
        )
        least += sum(self.newline_stays(newline, keys) for newline in newlines)
        room = self.next_count(group, len(tokens), least)
        if self.options["newlines"] == "keep":
            room -= len(newlines)

        leaders = self.leaders(patches, dual)
        patches.sort(key=lambda t: (t not in leaders, not t.key, -(t.cls_attention if t.key else dual[t])))
        open_lines: set[int | None] = {None}
        stays: list[Token] = []
        openers: list[Token] = []
        for token in patches:
            cost = 1 if self.line(token) in open_lines else 2
            if cost > room:
                break
            room -= cost
            stays.append(token)
            if cost == 2:
                openers.append(token)
                open_lines.add(self.line(token))
        rest = patches[len(stays) :]
        if room and rest:
            cheap = [token for token in rest if self.line(token) in open_lines]
            removable = [token for token in stays if token not in openers + leaders and not token.key]
            if cheap:
                stays.append(cheap[0])
            elif removable:
                stays.remove(removable[-1])
                stays.append(rest[0])
        return stays or patches[:1]

    def leaders(self, patches: list[Token], dual: dict[Token, float]) -> list[Token]:
        """One token of each image without key tokens where images share a budget, outside rows if there is one."""
        if self.options["scope"] != "request":
            return []
        leaders = []
        outside = [token for token in patches if self.line(token) is None]
        for image in {token.image for token in patches}:
            if not any(token.key for token in patches if token.image == image):
                leaders.append(max((t for t in outside or patches if t.image == image), key=dual.__getitem__))
        return leaders

    # --- the budget

    def target(self, members: list[Token]) -> float:
        """Average that a group is to meet."""
        newlines = sum(token.newline for token in members) if self.options["newlines"] == "drop" else 0
        available = len(members) - newlines
        wanted = self.options["visual_tokens"] or self.options["keep_ratio"] * available
        return min(wanted, available)

    def next_count(self, group, current: int, least: int) -> int:
        """Tokens that a group leaves at this drop: `current * r`, with the r that spends the rest of the budget."""
        members = [token for token in self.tokens if self.group(token) == group]
        counted = self.received if self.options["counter"] == "input" else self.received[1:]
        spent = sum(token.place in places for places in counted for token in members)
        rest = self.target(members) * self.depth - spent
        last = self.depth - (1 if self.options["counter"] == "input" else 0)
        ahead = [layer for layer in self.drop_layers if layer >= len(self.received) - 1]
        weights = [after - before for before, after in zip(ahead, [*ahead[1:], last], strict=True)]

        def cost(factor: float) -> float:
            return sum(weight * max(least, current * factor**power) for power, weight in enumerate(weights, 1))

        low, high = 0.0, 1.0
        if cost(1.0) <= rest:
            low = 1.0
        while high - low > 1e-15:
            middle = (low + high) / 2
            low, high = (middle, high) if cost(middle) <= rest else (low, middle)
        return min(max(round(current * low), least), current)

    # --- what belongs together

    def group(self, token: Token):
        """The tokens that share a budget."""
        return {"tile": token.tile, "image": token.image, "request": 0}[self.options["scope"]]

    def line(self, token: Token) -> int | None:
        """The newline that stays while the token does; one of another tile is not in a tile's budget."""
        if token.line is None or self.options["newlines"] != "row":
            return None
        owner = next(other.tile for other in self.tokens if other.place == token.line)
        return token.line if self.options["scope"] != "tile" or owner == token.tile else None

    def newline_stays(self, newline: Token, patches: list[Token]) -> bool:
        """Whether a newline stays beside the patches."""
        held = any(self.line(token) == newline.place for token in patches)
        return {"drop": False, "keep": True, "row": held}[self.options["newlines"]]

    def with_text_and_newlines(self, patches: list[Token]) -> set[int]:
        """Places of the text, the patches and the newlines that stay beside them."""
        visual = {token.place for token in self.tokens}
        text = set(range(self.inputs["input_ids"].shape[1])) - visual
        newlines = {token.place for token in self.tokens if token.newline and self.newline_stays(token, patches)}
        return text | {token.place for token in patches} | newlines


def default_layers(depth: int) -> list[int]:
    """Layers 2, 6, 10, 14 of 32, scaled, those that can act."""
    scaled = [max(stage, (layer + 1) * depth // 32 - 1) for stage, layer in enumerate((2, 6, 10, 14))]
    return [layer for layer in scaled if layer < depth - 1]


def key_count(tokens: int, ratio: float) -> int:
    """Key tokens of a tile that has so many tokens left."""
    return ceil(ratio * tokens - 1e-9)


def windows(side: int) -> list[tuple[int, ...]]:
    """Cells of each whole window."""
    corners = range(0, side - side % WINDOW, WINDOW)
    return [
        tuple((top + i) * side + left + j for i in range(WINDOW) for j in range(WINDOW))
        for top in corners
        for left in corners
    ]


def slot_of(window: tuple[int, ...], alive: set[int]) -> int:
    """The cell that a merged window leaves: its centre, or its first cell that unpadding leaves."""
    centre = window[len(window) // 2]
    return centre if centre in alive else next(cell for cell in window if cell in alive)


def mean_cosine(states: torch.Tensor) -> float:
    """Mean cosine similarity over pairs of the states."""
    states = states.double()
    pairs = [(i, j) for i in range(len(states)) for j in range(i)]
    return sum(float(torch.cosine_similarity(states[i], states[j], dim=0)) for i, j in pairs) / len(pairs)


def run_with_weights(layer, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's output, and its attention weights `[batch, heads, queries, keys]`."""
    found = []
    hook = layer.self_attn.register_forward_hook(lambda module, args, output: found.append(output[1]))
    try:
        return layer(*args, **kwargs), found[0]
    finally:
        hook.remove()
