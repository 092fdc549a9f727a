"""Which windows MustDrop merges: by similarity, and as far as a budget allows or asks."""

import torch

from .budget import unreachable
from .stages import VisionContext
from .token_ops import rank_in_groups, segment_sum, window_slots


def merged_windows(config, layers: tuple[int, ...], context: VisionContext, windows, similarity):
    """Choose the windows to merge.

    Without a budget these are the windows of similarity >= `merge_threshold`. With one they are merged from the most
    similar on, and merging stops before the group's tokens fall below the budget; where the decoder layers before the
    first drop alone would exceed the budget, the next most similar windows are merged too.

    Parameters
    ----------
    config : TokenReductionConfig
        The options.
    layers : tuple[int, ...]
        Decoder layers after which tokens are dropped.
    context : VisionContext
        The stage.
    windows : torch.LongTensor
        `[windows, members]`, cells.
    similarity : torch.Tensor
        `[tiles, windows]`.

    Returns
    -------
    tuple[torch.BoolTensor, torch.LongTensor]
        `[tiles, windows]`, and per image the number of windows that only the budget made merge.

    Raises
    ------
    ValueError
        If the budget can't be reached even with every window merged; the smallest reachable average is named.
    """
    wanted = similarity >= config.merge_threshold
    images = int(context.image.max()) + 1
    if config.merge_count == "batch_minimum":
        count = wanted.sum(-1).amin()
        rank = similarity.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        wanted = rank < count
    if config.by_threshold:
        return wanted, torch.zeros(images, dtype=torch.long, device=wanted.device)

    groups = {"tile": torch.arange(len(wanted), device=wanted.device), "image": context.image}
    groups["request"] = context.request
    group = groups[config.scope]
    merged = torch.zeros_like(wanted)
    planner = _GroupPlanner(config, layers, context, windows)
    for number in range(int(group.max()) + 1):
        tiles = (group == number).nonzero().squeeze(-1)
        merged[tiles] = planner.plan(tiles, similarity[tiles], wanted[tiles])
    forced = segment_sum((merged & ~wanted).sum(-1), context.image, images)
    return merged, forced


class _GroupPlanner:
    """Plans the merging of one group of tiles under a budget."""

    def __init__(self, config, layers: tuple[int, ...], context: VisionContext, windows: torch.Tensor):
        self.config, self.layers, self.context, self.windows = config, layers, context, windows
        self.budget = config.budget()
        self.slots = window_slots(windows, context.alive)

    def plan(self, tiles: torch.Tensor, similarity: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """`[tiles, windows]`, the windows to merge."""
        flat, candidates = similarity.flatten(), similarity.flatten().isfinite()
        order = rank_in_groups(flat, (~candidates).long())[: int(candidates.sum())]
        counts = self._counts_after(tiles, order, similarity.shape)
        full = self._full(tiles)
        if full == 0:
            return torch.zeros_like(wanted)
        target = self.budget.target(full.unsqueeze(0))
        least = torch.full((1,), self._least(tiles), device=counts.device)
        steps = torch.arange(len(counts), device=counts.device)

        allowed = (counts >= target) & (steps <= int(wanted.sum()))
        merged = int(steps[allowed].max()) if bool(allowed.any()) else 0
        floors = self.budget.floor(counts, least, self.layers, self.context.num_layers)
        enough = (floors <= target + 1e-9) & (steps >= merged)
        if not bool(enough.any()):
            raise unreachable(target, floors.min().unsqueeze(0), self.budget)
        merged = int(steps[enough].min())
        chosen = torch.zeros_like(flat, dtype=torch.bool)
        chosen[order[:merged]] = True
        return chosen.view_as(similarity)

    def _full(self, tiles: torch.Tensor) -> torch.Tensor:
        return self.context.alive[tiles].sum() + len(self._own_lines(tiles))

    def _least(self, tiles: torch.Tensor) -> int:
        images = len(self.context.image[tiles].unique())
        return images + (len(self._own_lines(tiles)) if self.config.newlines == "keep" else 0)

    def _own_lines(self, tiles: torch.Tensor) -> torch.Tensor:
        """Lines whose newline belongs to the group."""
        owners = self.context.line_owner
        return (owners.unsqueeze(-1) == tiles).any(-1).nonzero().squeeze(-1)

    def _counts_after(self, tiles: torch.Tensor, order: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Tokens of the group after 0, 1, 2, ... merges in the given order, `[len(order) + 1]`."""
        alive, line = self.context.alive[tiles], self.context.line[tiles]
        steps = len(order)
        step = torch.full((shape.numel(),), steps + 1, device=order.device)
        step[order] = torch.arange(1, steps + 1, device=order.device)
        leaves = torch.full(alive.shape, steps + 1, device=order.device)
        members = self.windows.unsqueeze(0).expand(len(tiles), -1, -1)
        leaves.scatter_(1, members.flatten(1), step.view(shape).unsqueeze(-1).expand_as(members).flatten(1))
        leaves.scatter_(1, self.slots[tiles], steps + 1)
        leaves = leaves.masked_fill(~alive, 0)
        tokens = torch.bincount(leaves[alive].flatten(), minlength=steps + 2)

        lines = self._own_lines(tiles)
        if self.config.newlines == "drop" or len(lines) == 0:
            newlines = torch.zeros_like(tokens)
        elif self.config.newlines == "keep":
            newlines = torch.zeros_like(tokens)
            newlines[steps + 1] = len(lines)
        else:
            inside = alive & (line >= 0)
            ends = torch.full((len(self.context.line_owner),), steps + 1, device=order.device)
            ends.scatter_reduce_(0, line[inside], leaves[inside], "amax", include_self=False)
            newlines = torch.bincount(ends[lines], minlength=steps + 2)
        total = int(tokens.sum() + newlines.sum())
        return total - (tokens + newlines)[: steps + 1].cumsum(0)
