"""Which windows MustDrop merges: by similarity, and as far as a budget allows or asks."""

import torch

from ..core.budget import unreachable
from ..core.tile_layout import Tiles
from ..ops.token_ops import ranks, rounded_up, segment_sum
from ..ops.windows import window_slots


def merged_windows(options, layers: tuple[int, ...], context: Tiles, windows, similarity):
    """Choose the windows to merge.

    Without a budget these are the windows of similarity >= `merge_threshold`. With one they are merged from the most
    similar on, and merging stops before the group's tokens fall below the budget; then the next most similar windows
    are merged until the budget pays for all tokens in the decoder layers before the first drop and, in the later ones,
    for the least that must stay, key tokens above all, and `text_ratio` places for each of these that the text
    decides. Where no merging makes that room, it is made for the least alone. All this is planned on the host.

    Parameters
    ----------
    options : MustDropOptions
        The options.
    layers : tuple[int, ...]
        Decoder layers after which tokens are dropped.
    context : Tiles
        What the tiles show.
    windows : torch.LongTensor
        `[windows, members]`, cells.
    similarity : torch.Tensor
        `[tiles, windows]`.

    Returns
    -------
    tuple[torch.BoolTensor, torch.LongTensor]
        `[tiles, windows]`, and per image the number of windows that merge only because the budget needs it.

    Raises
    ------
    ValueError
        If the budget can't be reached even with every window merged; the smallest reachable average is named.
    """
    device, context, windows, similarity = similarity.device, context.to("cpu"), windows.cpu(), similarity.cpu()
    wanted = similarity >= options.merge_threshold
    images = int(context.image.max()) + 1
    if options.merge_count == "batch_minimum":
        wanted = ranks(similarity) < wanted.sum(-1).amin()
    if options.by_threshold:
        return wanted.to(device), torch.zeros(images, dtype=torch.long, device=device)

    every = torch.arange(len(wanted))
    group = {"tile": every, "image": context.image, "request": context.request}[options.scope]
    merged, forced = torch.zeros_like(wanted), torch.zeros_like(wanted)
    planner = _GroupPlanner(options, layers, context, windows)
    for number in range(int(group.max()) + 1):
        tiles = (group == number).nonzero().squeeze(-1)
        merged[tiles], forced[tiles] = planner.plan(tiles, similarity[tiles], wanted[tiles])
    return merged.to(device), segment_sum(forced.sum(-1), context.image, images).to(device)


class _GroupPlanner:
    """Plans the merging of one group of tiles under a budget."""

    def __init__(self, options, layers: tuple[int, ...], context: Tiles, windows: torch.Tensor):
        self.options, self.layers, self.context, self.windows = options, layers, context, windows
        self.budget = options.budget()
        self.slots = window_slots(windows, context.alive)

    def plan(self, tiles: torch.Tensor, similarity: torch.Tensor, wanted: torch.Tensor):
        """`[tiles, windows]` twice: the windows to merge, and those among them that merge so that the rest fits."""
        alive = self.context.alive[tiles]
        available = alive.sum()
        own_lines = torch.isin(self.context.line_owner, tiles)
        if self.options.counts_newlines:
            available = available + own_lines.sum()
        if available == 0:
            return torch.zeros_like(wanted), torch.zeros_like(wanted)
        target = self.budget.target(available.unsqueeze(0))
        merges = int(similarity.isfinite().sum())
        step = ranks(similarity.view(1, -1)).view_as(similarity).clamp_max(merges)
        leaves = torch.full(alive.shape, merges + 1)  # the merge, counted from 1, with which a cell leaves; or none
        leaves[:, self.windows] = step.unsqueeze(-1) + 1
        leaves.scatter_(1, self.slots[tiles], merges + 1)
        patches = _left_after(leaves, alive, merges)
        newlines = self._newlines_after(tiles, own_lines, leaves, merges)
        counts, keys = patches.sum(0) + newlines, self._keys_after(tiles, patches)
        staying = newlines
        if self.options.newlines == "row":  # with key tokens, known later only: the most that these can hold
            staying = torch.minimum(newlines, keys) * self.options.protects_key_tokens
        least = keys + staying
        steps = torch.arange(merges + 1)

        allowed = (counts >= target) & (steps <= int(wanted.sum()))
        free = int(steps[allowed].max()) if bool(allowed.any()) else 0
        floors, roomy = (
            self.budget.floor(counts, late, self.layers, self.context.num_layers)
            for late in (least, least + self.options.text_ratio * keys)
        )
        enough = (floors <= target + 1e-9) & (steps >= free)
        if not bool(enough.any()):
            raise unreachable(target, floors.min().unsqueeze(0), self.budget)
        with_room = (roomy <= target + 1e-9) & (steps >= free) & (counts >= target)
        enough = with_room if bool(with_room.any()) else enough
        merged = step < int(steps[enough].min())
        return merged, merged & (step >= free)

    def _newlines_after(self, tiles: torch.Tensor, own_lines, leaves: torch.Tensor, steps: int) -> torch.Tensor:
        """Newlines of the group, which has the marked lines, after 0, 1, 2, ... merges, `[steps + 1]`."""
        ends, line = torch.full(own_lines.shape, steps + 1), self.context.line[tiles]
        if self.options.newlines == "row":
            inside = self.context.alive[tiles] & (line >= 0)
            ends.scatter_reduce_(0, line[inside], leaves[inside], "amax", include_self=False)
        return _left_after(ends, own_lines & (self.options.newlines != "drop"), steps)

    def _keys_after(self, tiles: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Patch tokens that must stay to the end after 0, 1, 2, ... merges, `[steps + 1]`: one per image or more."""
        keys = rounded_up(patches.double() * self.options.key_ratio) * self.options.protects_key_tokens
        _, image = self.context.image[tiles].unique(return_inverse=True)
        per_image = keys.new_zeros(int(image.max()) + 1, keys.shape[1]).index_add_(0, image, keys)
        return per_image.clamp_min(1).sum(0)


def _left_after(leaves: torch.Tensor, among: torch.Tensor, steps: int) -> torch.Tensor:
    """`[..., steps + 1]`: how many marked entries of the last axis are left after 0, 1, 2, ... merges."""
    counts = torch.zeros(*leaves.shape[:-1], steps + 2, dtype=torch.long, device=leaves.device)
    counts.scatter_add_(-1, leaves, among.long())
    return counts.sum(-1, keepdim=True) - counts[..., : steps + 1].cumsum(-1)
