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
    rank : torch.LongTensor
        `[batch, entries]`, number of the pick, from 0; `entries` for what is not picked.
    """

    def __init__(self, valid: torch.Tensor, counts: torch.Tensor):
        self.free = valid.clone()
        self.counts = torch.minimum(counts, valid.sum(-1))
        self.most = int(self.counts.max())
        self.rank = torch.full(valid.shape, valid.shape[1], device=valid.device)

    def take(self, number: int, scores: torch.Tensor) -> torch.Tensor:
        """Pick the free entry of highest `scores [batch, entries]` of each row, the first of equals: `[batch]`."""
        best = scores.masked_fill(~self.free, float("-inf")).argmax(-1, keepdim=True)
        now = torch.where((number < self.counts).unsqueeze(-1), number, self.rank.gather(1, best))
        self.rank.scatter_(1, best, now)
        self.free.scatter_(1, best, False)
        return best.squeeze(-1)


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
    picks, rows = Picks(valid, counts), torch.arange(len(valid), device=valid.device)
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    nearest = similarity.masked_fill(itself | ~valid.unsqueeze(1), float("-inf")).amax(-1)
    for number in range(picks.most):
        best = picks.take(number, -nearest)
        row = similarity[rows, best]
        nearest = torch.maximum(nearest, row) if number else row
    return picks.rank


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
    picks, rows = Picks(valid, counts), torch.arange(len(valid), device=valid.device)
    covering = similarity.masked_fill(~valid.unsqueeze(1), 0.0)
    covered, growth = torch.zeros_like(weight), torch.empty_like(covering)
    for number in range(picks.most):
        torch.sub(covering, covered.unsqueeze(1), out=growth)
        best = picks.take(number, growth.clamp_min_(0).sum(-1) * weight)
        covered = torch.maximum(covered, covering[rows, best])
    return picks.rank


@torch.no_grad()
def pivoted_qr(
    gram: torch.Tensor, valid: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Order of pivots of a QR factorisation: each is the vector of which the earlier ones leave the longest rest.

    It is read off a pivoted Cholesky factorisation of the inner products. What is a millionth of the longest vector,
    squared, or less, counts as nothing. With weights the same order is that in which a determinantal point process
    with the kernel `weight_i gram_ij weight_j` is given its likeliest next entry.

    Parameters
    ----------
    gram : torch.Tensor
        `[batch, entries, entries]`, inner products of the vectors.
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
    picks, rows = Picks(valid, counts), torch.arange(len(valid), device=valid.device)
    rest = gram.diagonal(dim1=1, dim2=2).clone()
    least = 1e-6 * rest.masked_fill(~valid, 0.0).amax(-1, keepdim=True)
    factors = gram.new_zeros(len(gram), picks.most, gram.shape[1])
    for number in range(picks.most):
        rest = rest.masked_fill(rest <= least, 0.0)
        best = picks.take(number, rest * weight**2)
        pivot = rest[rows, best].unsqueeze(-1)
        known = (factors[rows, :number, best].unsqueeze(1) @ factors[:, :number]).squeeze(1)
        column = (gram[rows, best] - known) * (pivot > 0) / pivot.clamp_min(least).sqrt()
        factors[:, number] = column
        rest = rest - column**2
    return picks.rank
