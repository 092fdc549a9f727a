"""Pure tensor functions on tokens: taking some, pairing similar ones (ToMe, arXiv 2210.09461), merging groups."""

import torch


def bipartite_targets(keys: torch.Tensor, order: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bipartite soft matching of tokens of which each row may have another number.

    Tokens alternate between two halves in the given order. Each token of the first half draws an edge to the token of
    the second half whose key is nearest by cosine; the `counts` tokens with the strongest edges merge along them. The
    first token of the order never merges into another, and being in the first half nothing merges into it.

    Parameters
    ----------
    keys : torch.Tensor
        `[batch, length, channels]`.
    order : torch.LongTensor
        `[batch, candidates]`, indices of the tokens that take part, padded with -1 on the right.
    counts : torch.LongTensor
        `[batch]`, tokens that merge away, at most `(candidates - 1) // 2` of a row.

    Returns
    -------
    torch.LongTensor
        `[batch, length]`, the token that each token becomes part of; itself where it does not merge.
    """
    batch, length = keys.shape[:2]
    target = torch.arange(length, device=keys.device).repeat(batch, 1)
    source, destination = order[:, 0::2], order[:, 1::2]
    if destination.shape[1] == 0:
        return target
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    first, second = (take_tokens(unit, half.clamp_min(0)) for half in (source, destination))
    similarity = (first @ second.transpose(1, 2)).masked_fill((destination < 0).unsqueeze(1), float("-inf"))
    best, nearest = similarity.max(-1)
    best = best.masked_fill(source < 0, float("-inf"))
    best[:, 0] = float("-inf")
    rank = ranks(best)
    merged = rank < counts.unsqueeze(-1)
    goal = torch.where(merged, destination.gather(1, nearest), source)
    place = torch.where(source < 0, length, source)  # padding writes beside the tokens
    wide = torch.nn.functional.pad(target, (0, 1))
    return wide.scatter(1, place, goal)[:, :length]


def merge_groups(
    values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None, by_place: bool = False
) -> torch.Tensor:
    """Write the mean of each group of tokens into the slot that the group merges into.

    Sums are taken in float32 at least, whatever the dtype of the values.

    Parameters
    ----------
    values : torch.Tensor
        `[batch, length, channels]`.
    target : torch.LongTensor
        `[batch, length]`, slot of each token; -1 for tokens that leave. A slot's own token is part of its group.
    weights : torch.Tensor or None
        `[batch, length]`, such as sizes; None: all equal.
    by_place : bool
        Whether members are summed by place, the slot's own among them, instead of after it. It is the last bit.

    Returns
    -------
    torch.Tensor
        `[batch, length, channels]`; slots that nothing merges into keep their values, bit by bit.
    """
    exact = torch.promote_types(values.dtype, torch.float32)
    weight = torch.ones(target.shape, dtype=exact, device=values.device) if weights is None else weights.to(exact)
    members, total = group_sizes(target), group_sizes(target, weight)
    grouped = (target >= 0) & (members.gather(1, target.clamp_min(0)) > 1)
    sums = values.to(exact) * weight.masked_fill(~grouped, 1.0).unsqueeze(-1)
    moving = grouped if by_place else grouped & (target != torch.arange(target.shape[1], device=target.device))
    rows, places = moving.nonzero(as_tuple=True)
    merging = sums[rows, places]
    if by_place:
        sums[rows, places] = 0.0
    sums.index_put_((rows, target[rows, places]), merging, accumulate=True)
    total = total.clamp_min(torch.finfo(total.dtype).tiny).masked_fill(members <= 1, 1.0)
    return (sums / total.unsqueeze(-1)).to(values.dtype)


def mixtures(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums `[batch, sums, channels]` of `values [batch, length, channels]`.

    Sums are taken in float32 at least, as `weights [batch, sums, length]` say, and have the dtype of the values.
    """
    exact = torch.promote_types(values.dtype, torch.float32)
    return (weights.to(exact) @ values.to(exact)).to(values.dtype)


def group_sizes(target: torch.Tensor, sizes: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of the sizes (default: 1 each) of the tokens that each slot receives, `[batch, length]`.

    Parameters
    ----------
    target : torch.LongTensor
        `[batch, length]`, slot of each token; -1 for tokens that leave.
    sizes : torch.Tensor or None
        `[batch, length]`, any dtype that holds the sums; default: float32.
    """
    sizes = torch.ones(target.shape, dtype=torch.float32, device=target.device) if sizes is None else sizes
    return torch.zeros_like(sizes).scatter_add(1, target.clamp_min(0), sizes.masked_fill(target < 0, 0.0))


def rounded_down(numbers: torch.Tensor) -> torch.Tensor:
    """The next smaller whole numbers; a number that is whole but for its last bits stays."""
    return torch.floor(numbers.double() + 1e-9).long()


def rounded_up(numbers: torch.Tensor) -> torch.Tensor:
    """The next larger whole numbers; a number that is whole but for its last bits stays."""
    return torch.ceil(numbers.double() - 1e-9).long()


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Rank of each entry of `scores [batch, entries]` in its row, 0 for the largest, ties by place."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, places)


def top(scores: torch.Tensor, among: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mark the `counts [batch]` entries of highest score of those `among [batch, entries]`, ties by place."""
    return among & (ranks(scores.masked_fill(~among, float("-inf"))) < counts.unsqueeze(-1))


def ordered_indices(among: torch.Tensor, scores: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Indices of the marked tokens, by falling score, equal ones by place.

    Parameters
    ----------
    among : torch.BoolTensor
        `[batch, length]`.
    scores : torch.Tensor or float
        `[batch, length]`, or one of all.

    Returns
    -------
    torch.LongTensor
        `[batch, most marked tokens of a row]`, padded with -1 on the right.
    """
    count = among.sum(-1, keepdim=True)
    order = torch.where(among, scores, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    order = torch.where(torch.arange(order.shape[1], device=order.device) < count, order, -1)
    return order[:, : int(count.max())]


def evenly_spaced(among: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Of the marked entries of each row, the first and every `marked // count`-th after it, `count` in all.

    Parameters
    ----------
    among : torch.BoolTensor
        `[batch, length]`.
    counts : torch.LongTensor
        `[batch]`, not above the marked entries.

    Returns
    -------
    torch.BoolTensor
        `[batch, length]`.
    """
    counts = counts.unsqueeze(-1)
    step = (among.sum(-1, keepdim=True) // counts.clamp_min(1)).clamp_min(1)
    number = among.cumsum(-1) - 1
    return among & (number % step == 0) & (number // step < counts)


def padded_indices(
    keep: torch.Tensor, side: str, leading: int = 0, kept: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending indices of the True entries of each row, padded to the longest row.

    Parameters
    ----------
    keep : torch.BoolTensor
        `[batch, tokens]`.
    side : {"left", "right"}
        Where padding goes.
    leading : int
        First entries of each row, all True, that come before padding on the left.
    kept : int or None
        True entries of the longest row, where that is known; None: they are counted, for which the host waits.

    Returns
    -------
    tuple[torch.LongTensor, torch.BoolTensor]
        `index [batch, kept]` and `valid [batch, kept]`; padding entries have index 0.
    """
    kept = int(keep.sum(-1).max()) if kept is None else kept
    rank = (~keep if side == "right" else keep).to(torch.int8)
    if leading:
        rank[:, :leading] = -1
    order = torch.sort(rank, dim=-1, stable=True).indices
    if side == "right":
        order = order[:, :kept]
    else:
        order = torch.cat([order[:, :leading], order[:, keep.shape[1] - kept + leading :]], dim=1)
    valid = keep.gather(1, order)
    return order.masked_fill(~valid, 0), valid


def take_tokens(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Entries `[batch, kept, ...]` of `values [batch, tokens, ...]` at `index [batch, kept]`, whole rows at a time."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(-1), index]


def segment_sum(values: torch.Tensor, segments: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of `values` per segment; entries of segment -1 are left out.

    Parameters
    ----------
    values, segments : torch.Tensor
        The same shape.
    count : int
        Number of segments.

    Returns
    -------
    torch.Tensor
        `[count]`, the dtype of `values`.
    """
    shifted = (segments + 1).flatten()  # one more segment, so that no number is read from the device
    return values.new_zeros(count + 1).index_add_(0, shifted, values.flatten())[1:]


SEED_STRIDE = 1_000_003


def drawn_scores(seed: int, sample_seeds: torch.Tensor, visual: torch.Tensor, totals: list[int]) -> torch.Tensor:
    """A score for each token of an unreduced image, drawn with `seed` and each sample's own seed.

    Parameters
    ----------
    seed : int
        Of the method.
    sample_seeds : torch.LongTensor
        `[batch]`.
    visual : torch.LongTensor
        `[batch, length]`, number of each visual token among those of its unreduced row; negative for others.
    totals : list[int]
        Visual tokens of each unreduced row.

    Returns
    -------
    torch.Tensor
        `[batch, length]` float64; a row's scores do not depend on its batch.
    """
    scores = torch.zeros(visual.shape, dtype=torch.float64, device=visual.device)
    for row, sample_seed in enumerate(sample_seeds.tolist()):
        generator = torch.Generator().manual_seed((seed * SEED_STRIDE + sample_seed) % 2**63)
        drawn = torch.rand(totals[row], generator=generator, dtype=torch.float64).to(visual.device)
        inside = visual[row] >= 0
        scores[row, inside] = drawn[visual[row, inside]]
    return scores
