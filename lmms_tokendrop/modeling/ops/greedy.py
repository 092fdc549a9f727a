"""Greedy choices: entry after entry, each by what the earlier ones leave to be wanted, for a batch at once."""

import torch


class Picks:
    """Which entries were picked, and when.

    Parameters
    ----------
    valid : torch.BoolTensor
        `[batch, entries]`, those that can be picked.
    counts : torch.LongTensor
        `[batch]`, how many are.

    Attributes
    ----------
    most : int
        Picks of the row that gets most.
    """

    def __init__(self, valid: torch.Tensor, counts: torch.Tensor):
        self.free = valid.clone()
        self.counts = torch.minimum(counts, valid.sum(-1))
        self.most = int(self.counts.max())
        self.order: list[torch.Tensor] = []
        self._rows = torch.arange(len(valid), device=valid.device)

    def take(self, scores: torch.Tensor) -> torch.Tensor:
        """Pick the free entry of highest `scores [batch, entries]` of each row, the first of equals: `[batch, 1]`."""
        best = scores.where(self.free, float("-inf")).argmax(-1, keepdim=True)
        self.free.scatter_(1, best, False)
        self.order.append(best)
        return best

    def last(self, values: torch.Tensor) -> torch.Tensor:
        """`values [batch, entries, ...]` at the last pick of each row: `[batch, ...]`."""
        return values[self._rows, self.order[-1][:, 0]]

    def rank(self) -> torch.Tensor:
        """`[batch, entries]`: number of the pick, then of free entries by place; `entries` behind the counts."""
        picked = torch.cat(self.order, 1) if self.order else self._rows.new_empty(len(self._rows), 0)
        number = torch.arange(picked.shape[1], device=picked.device).expand_as(picked)
        following = (picked.shape[1] - 1 + self.free.cumsum(-1)).where(self.free, self.free.shape[1])
        rank = following.scatter_reduce(1, picked, number, "amin")
        return rank.where(rank < self.counts.unsqueeze(-1), self.free.shape[1])


@torch.no_grad()
def farthest_first(similarity: torch.Tensor, valid: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Max-min diversity: each entry is the one whose nearest earlier pick is farthest.

    The first is the one whose nearest other entry is farthest.

    Parameters
    ----------
    similarity : torch.Tensor
        `[batch, entries, entries]`, symmetric; less is farther.
    valid : torch.BoolTensor
        `[batch, entries]`.
    counts : torch.LongTensor
        `[batch]`.

    Returns
    -------
    torch.LongTensor
        `[batch, entries]`, see `Picks.rank`.
    """
    picks = Picks(valid, counts)
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    nearest = similarity.masked_fill(itself | ~valid.unsqueeze(1), float("-inf")).amax(-1)
    for number in range(picks.most):
        picks.take(-nearest)
        row = picks.last(similarity)
        nearest = torch.maximum(nearest, row) if number else row
    return picks.rank()


@torch.no_grad()
def coverage_first(
    similarity: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Weighted coverage: each entry is the one by which the similarity of all to their nearest pick grows most.

    Parameters
    ----------
    similarity : torch.Tensor
        `[batch, entries, entries]`, symmetric; below 0 it covers nothing.
    weight : torch.Tensor
        `[batch, entries]`, by which an entry's growth is multiplied.
    valid : torch.BoolTensor
        `[batch, entries]`, those that can be picked and are to be covered.
    counts : torch.LongTensor
        `[batch]`.

    Returns
    -------
    torch.LongTensor
        `[batch, entries]`, see `Picks.rank`.
    """
    picks = Picks(valid, counts)
    covering = similarity.masked_fill(~valid.unsqueeze(1), 0.0)
    covered, growth = torch.zeros_like(weight), torch.empty_like(covering)
    for _ in range(picks.most):
        torch.sub(covering, covered.unsqueeze(1), out=growth)
        picks.take(growth.clamp_min_(0).sum(-1) * weight)
        covered = torch.maximum(covered, picks.last(covering))
    return picks.rank()


@torch.no_grad()
def pivoted_qr(
    vectors: torch.Tensor, valid: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Order of pivots of a QR factorisation: each is the vector of which the earlier ones leave the longest rest.

    It is read off a pivoted Cholesky factorisation of the inner products. What is a millionth of the longest vector,
    squared, or less, counts as nothing, and so do all rests behind as many pivots as there are channels; what nothing
    is left of follows by place. With weights the same order is that in which a determinantal point process
    with the kernel `weight_i (v_i . v_j) weight_j` of vectors `v` is given its likeliest next entry.

    Parameters
    ----------
    vectors : torch.Tensor
        `[batch, entries, channels]`.
    valid : torch.BoolTensor
        `[batch, entries]`.
    counts : torch.LongTensor
        `[batch]`.
    weight : torch.Tensor or float
        `[batch, entries]`, by which the length of a rest is multiplied.

    Returns
    -------
    torch.LongTensor
        `[batch, entries]`, see `Picks.rank`.
    """
    picks = Picks(valid, counts)
    gram = vectors @ vectors.transpose(1, 2)
    rest = gram.diagonal(dim1=1, dim2=2)
    least = 1e-6 * rest.masked_fill(~valid, 0.0).amax(-1, keepdim=True)
    squared, pivots = weight**2, min(picks.most, vectors.shape[2])
    factors = gram.new_zeros(len(gram), pivots, gram.shape[1])
    for number in range(pivots):
        rest = rest.masked_fill(rest <= least, 0.0)
        best = picks.take(rest * squared)
        pivot, before = rest.gather(1, best), factors[:, :number]
        known = picks.last(before.transpose(1, 2)).unsqueeze(1) @ before
        column = (picks.last(gram) - known.squeeze(1)) * torch.where(pivot > 0, pivot.rsqrt(), 0.0)
        factors[:, number] = column
        rest = torch.addcmul(rest, column, column, value=-1)
    return picks.rank()
