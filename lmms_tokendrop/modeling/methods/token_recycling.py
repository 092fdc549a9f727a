"""Recycling of dropped tokens: the best of them are clustered and come back as one token per cluster (SparseVLM)."""

import torch

from ..ops.selecting import fit_counts, tokens_of_groups
from ..ops.token_ops import group_sizes, merge_groups, ranks, rounded_down, top


def cluster_counts(dropped: torch.Tensor, recycled_ratio: float, cluster_ratio: float) -> torch.Tensor:
    """Clusters that a number of dropped tokens gives.

    Of n tokens that leave, `int(recycled_ratio * n) + 1` are recycled, at most all of them, and c of these make
    `int(cluster_ratio * c) + 1` clusters.

    Parameters
    ----------
    dropped : torch.LongTensor
        Of any shape.
    recycled_ratio, cluster_ratio : float
        The method's shares.

    Returns
    -------
    torch.LongTensor
        The same shape; 0 where nothing leaves.
    """
    recycled = recycled_counts(dropped, recycled_ratio)
    return torch.minimum(rounded_down(recycled.double() * cluster_ratio) + 1, recycled)


def recycled_counts(dropped: torch.Tensor, recycled_ratio: float) -> torch.Tensor:
    """How many of the dropped tokens are recycled; see :func:`cluster_counts`."""
    return torch.minimum(rounded_down(dropped.double() * recycled_ratio) + 1, dropped)


def kept_of_total(
    total: torch.Tensor, current: torch.Tensor, least: torch.Tensor, recycled_ratio: float, cluster_ratio: float
) -> torch.Tensor:
    """Tokens to keep as they are, so that with the clusters of the others a total is left.

    Parameters
    ----------
    total, current, least : torch.LongTensor
        `[groups]`: tokens to leave, tokens now, tokens that must stay.
    recycled_ratio, cluster_ratio : float
        See :func:`cluster_counts`.

    Returns
    -------
    torch.LongTensor
        `[groups]`, as many as possible. Where `least` and their clusters are more than the total, these are kept, and
        there are fewer clusters.
    """
    every = torch.arange(int(current.max()) + 1, device=current.device)
    lost = every - cluster_counts(every, recycled_ratio, cluster_ratio)  # rises by 0 or 1 with every dropped token
    dropped = torch.searchsorted(lost, current - total)
    return torch.maximum(current - dropped, least).minimum(total)


def recycled(
    states: torch.Tensor,
    scores: torch.Tensor,
    groups: torch.Tensor,
    counts: torch.Tensor,
    clusters: torch.Tensor,
    cosine: bool,
) -> torch.Tensor:
    """Cluster the best of the dropped tokens of each group.

    Centres are found by density peaks: with k the number of clusters, a token's density is `exp(-mean d ** 2)` over its
    k nearest tokens, itself counted, where d is the Euclidean distance divided by the root of the channels; its
    distance is that to the nearest token of higher density (of equal ones the first counts as higher), for the densest
    the largest of all; and the tokens of largest density times distance are the centres.

    Parameters
    ----------
    states : torch.Tensor
        `[batch, length, channels]`.
    scores : torch.Tensor
        `[batch, length]`.
    groups : torch.LongTensor
        `[batch, length]`, group of each dropped token; -1 for all others.
    counts, clusters : torch.LongTensor
        `[groups]`, tokens that are recycled, and clusters that they make.
    cosine : bool
        Whether a token joins the centre of highest cosine, not of smallest distance.

    Returns
    -------
    torch.LongTensor
        `[batch, length]`, place of its centre for each recycled token, itself for a centre; -1 for others.
    """
    chosen = fit_counts(scores, groups, None, counts)
    row, place, valid = tokens_of_groups(groups.masked_fill(~chosen, -1), len(counts))
    target = torch.full_like(groups, -1)
    if valid.shape[1]:
        device = states.device
        tokens = states[row.to(device), place.to(device)].float()
        centre = nearest_centres(tokens, valid.to(device), clusters.to(device), cosine).to(groups.device)
        target[row[valid], place[valid]] = place.gather(1, centre)[valid]
    return target


def nearest_centres(tokens: torch.Tensor, valid: torch.Tensor, clusters: torch.Tensor, cosine: bool) -> torch.Tensor:
    """The centre that each token joins; see :func:`recycled`.

    Parameters
    ----------
    tokens : torch.Tensor
        `[groups, tokens, channels]` float32.
    valid : torch.BoolTensor
        `[groups, tokens]`, False for padding.
    clusters : torch.LongTensor
        `[groups]`.
    cosine : bool
        As there.

    Returns
    -------
    torch.LongTensor
        `[groups, tokens]`, index of the centre, itself for a centre.
    """
    size = tokens.shape[1]
    pairs = valid.unsqueeze(1) & valid.unsqueeze(2)
    distance = torch.cdist(tokens, tokens) / tokens.shape[2] ** 0.5
    distance = distance.masked_fill(torch.eye(size, dtype=torch.bool, device=tokens.device), 0.0)
    most = min(int(clusters.max()), size)
    nearest = distance.masked_fill(~pairs, float("inf")).topk(most, largest=False).values.square()
    inside = (torch.arange(most, device=tokens.device) < clusters.view(-1, 1, 1)) & nearest.isfinite()
    density = (-nearest.masked_fill(~inside, 0.0).sum(-1) / inside.sum(-1).clamp_min(1)).exp()
    rank = ranks(density.masked_fill(~valid, -1.0))
    denser = pairs & (rank.unsqueeze(1) < rank.unsqueeze(2))
    largest = distance.masked_fill(~pairs, 0.0).amax((1, 2), keepdim=True)
    apart = torch.where(denser, distance, largest).amin(-1)
    centres = top(apart * density, valid, clusters)
    if cosine:
        unit = torch.nn.functional.normalize(tokens, dim=-1)
        distance = -unit @ unit.transpose(1, 2)
    joined = distance.masked_fill(~centres.unsqueeze(1), float("inf")).argmin(-1)
    return torch.where(centres, torch.arange(size, device=tokens.device), joined)


def recycled_states(states: torch.Tensor, target: torch.Tensor, summed: bool) -> torch.Tensor:
    """States `[batch, length, channels]` whose centres have the mean, or the sum, of the tokens that joined them.

    Parameters
    ----------
    states : torch.Tensor
        `[batch, length, channels]`.
    target : torch.LongTensor
        `[batch, length]`, from :func:`recycled`.
    summed : bool
        Whether tokens are added up.
    """
    target = target.to(states.device)
    means = merge_groups(states, target)
    return means * group_sizes(target).to(means.dtype).unsqueeze(-1) if summed else means
