"""Pure tensor functions that choose tokens to fit a count."""

import torch

from .token_ops import segment_sum


def rank_in_groups(priority: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Order of entries by group, then by falling priority, ties by place.

    Parameters
    ----------
    priority : torch.Tensor
        `[entries]`, any real dtype.
    groups : torch.LongTensor
        `[entries]`, not negative.

    Returns
    -------
    torch.LongTensor
        `[entries]`, indices into the entries.
    """
    by_priority = torch.sort(priority, descending=True, stable=True).indices
    return by_priority[torch.sort(groups[by_priority], stable=True).indices]


def tokens_of_groups(groups: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the tokens of each group are.

    Parameters
    ----------
    groups : torch.LongTensor
        `[batch, length]`, `0 .. count - 1`, or -1 for tokens of no group.
    count : int
        Number of groups.

    Returns
    -------
    tuple[torch.LongTensor, torch.LongTensor, torch.BoolTensor]
        `row`, `place` and `valid`, `[count, largest group]` each: ascending, 0 where a group has fewer tokens.
    """
    row, place = (groups >= 0).nonzero(as_tuple=True)
    group, order = torch.sort(groups[row, place], stable=True)
    total = segment_sum(torch.ones_like(group), group, count)
    slot = torch.arange(len(group), device=group.device) - (total.cumsum(0) - total)[group]
    largest = int(total.max())
    rows, places = (torch.zeros(count, largest, dtype=torch.long, device=group.device) for _ in range(2))
    rows[group, slot], places[group, slot] = row[order], place[order]
    return rows, places, torch.arange(largest, device=group.device) < total.unsqueeze(-1)


def place_in_group(priority: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """How many entries of its own group come before each entry, in the order of :func:`rank_in_groups`.

    Parameters
    ----------
    priority, groups : torch.Tensor
        The same shape; group -1 is none, and the place of its entries has no meaning.
    count : int
        Number of groups.
    """
    groups, shape = torch.where(groups < 0, count, groups).flatten(), groups.shape
    order = rank_in_groups(priority.flatten(), groups)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    total = segment_sum(torch.ones_like(groups), groups, count + 1)
    return (rank - (total.cumsum(0) - total)[groups]).view(shape)


def group_quantiles(values: torch.Tensor, groups: torch.Tensor, count: int, share: float) -> torch.Tensor:
    """A quantile of each group, linear between values; 0 for an empty group.

    Parameters
    ----------
    values, groups : torch.Tensor
        `[entries]`, numbers, and groups from 0 to `count - 1`.
    count : int
        Number of groups.
    share : float
        From 0 to 1.

    Returns
    -------
    torch.Tensor
        `[count]`, the dtype of `values`.
    """
    ordered = torch.nn.functional.pad(values[rank_in_groups(-values, groups)], (0, 1))
    sizes = segment_sum(torch.ones_like(groups), groups, count)
    first, last = sizes.cumsum(0) - sizes, (sizes - 1).clamp_min(0)
    place = share * last.to(values.dtype)
    below = place.floor().long()
    low, high = ordered[first + below], ordered[first + torch.minimum(below + 1, last)]
    return (low + (high - low) * (place - below)) * (sizes > 0)


def fit_counts(
    priority: torch.Tensor,
    groups: torch.Tensor,
    lines: torch.Tensor | None,
    counts: torch.Tensor,
    keys: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose the entries of highest priority so that each group meets its count, its newlines included.

    An entry costs one token; the first chosen entry of a line costs one more, for the newline that ends the line.

    Parameters
    ----------
    priority : torch.Tensor
        Of the entries, in any shape, which all have; any real dtype.
    groups : torch.LongTensor
        `0 .. len(counts) - 1`, or -1 for entries that can't be chosen.
    lines : torch.LongTensor or None
        The line of the entry, unique over all groups; -1 where no newline depends on the entry. None: on none does any.
    counts : torch.LongTensor
        `[groups]`, tokens to keep in each group.
    keys : torch.BoolTensor, optional
        Entries of highest priority that are not exchanged for others once they are chosen.

    Returns
    -------
    torch.BoolTensor
        True for chosen entries. A group may end one token short where every entry that could follow
        brings a newline, and one above where its count is one and its best entry, all that is chosen, brings one.
    """
    if lines is None:
        return place_in_group(priority, groups, len(counts)) < torch.cat([counts, counts.new_zeros(1)])[groups]
    shape, size = priority.shape, priority.numel()
    nowhere, counts = len(counts), torch.cat([counts, counts.new_zeros(1)])
    groups = torch.where(groups < 0, nowhere, groups).flatten()
    lines = torch.where(groups == nowhere, -1, lines.flatten())
    order = rank_in_groups(priority.flatten(), groups)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(size, device=order.device))
    has_line, line_count = lines >= 0, int(torch.nn.functional.pad(lines, (0, 1)).max()) + 1
    leads = has_line & (_best_rank(rank, has_line, lines, line_count, largest=False)[lines] == rank)
    cost = 1 + leads

    running = cost[order].cumsum(0)
    group_total = segment_sum(cost, groups, len(counts))
    before_group = group_total.cumsum(0) - group_total
    spent = torch.empty_like(running).scatter_(0, order, running - before_group[groups[order]])
    chosen = spent <= counts[groups]

    short = counts.clamp_max(group_total) - segment_sum(cost * chosen, groups, len(counts))
    if not bool((short > 0).any()):
        return chosen.view(shape)
    open_line = _best_rank(rank, chosen & has_line, lines, line_count, largest=False) < size
    cheap = ~chosen & (~has_line | open_line[lines]) & (short[groups] > 0)
    best_cheap = _best_rank(rank, cheap, groups, len(counts), largest=False)
    chosen = chosen | (cheap & (best_cheap[groups] == rank))

    stuck = (short > 0) & (best_cheap == size)
    removable = chosen & ~leads & stuck[groups]
    if keys is not None:
        removable = removable & ~keys.flatten()
    last_removable = _best_rank(rank, removable, groups, len(counts), largest=True)
    swap = stuck & (last_removable >= 0)
    next_leader = _best_rank(rank, ~chosen & leads & swap[groups], groups, len(counts), largest=False)
    swap = swap & (next_leader < size)
    chosen = chosen & ~(swap[groups] & (last_removable[groups] == rank))
    chosen = chosen | (swap[groups] & (next_leader[groups] == rank))

    empty = (counts > 0) & (segment_sum(chosen.long(), groups, len(counts)) == 0)
    best = _best_rank(rank, empty[groups], groups, len(counts), largest=False)
    return (chosen | (empty[groups] & (best[groups] == rank))).view(shape)


def _best_rank(rank: torch.Tensor, among: torch.Tensor, groups: torch.Tensor, count: int, largest: bool):
    """Smallest (or largest) rank per group among the marked entries; `len(rank)` (or -1) where there is none."""
    best = torch.full((count + 1,), -1 if largest else len(rank), device=rank.device)
    return best.scatter_reduce_(0, torch.where(among, groups, count), rank, "amax" if largest else "amin")[:count]
