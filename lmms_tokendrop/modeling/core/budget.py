"""How many visual tokens each stage may leave, so that the average over decoder layers meets a budget."""

from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat
from operator import mul

import torch


@dataclass(frozen=True)
class Budget:
    """A number of visual tokens: the average over decoder layers of what a layer receives.

    Parameters
    ----------
    tokens : float or None
        Tokens per group; exactly one of `tokens` and `ratio` is set.
    ratio : float or None
        Share of the group's tokens that can stay.
    scope : {"tile", "image", "request"}
        The group that the number is stated for.
    counter : {"input", "release"}
        "input" counts the tokens that a layer receives. "release" counts them after the drop that follows the
        layer, as the MustDrop release does.
    lowered_by : tuple[str, ...]
        Options of the method that lower the smallest average that it can leave, for the error.
    """

    tokens: float | None
    ratio: float | None
    scope: str
    counter: str
    lowered_by: tuple[str, ...] = ()

    def target(self, available: torch.Tensor) -> torch.Tensor:
        """Average to meet, `[groups]` float64, given the tokens that can stay, `[groups]`; never above them."""
        available = available.double()
        return available.clamp_max(self.tokens) if self.ratio is None else available * self.ratio

    def weights(self, layers: tuple[int, ...], num_layers: int) -> list[int]:
        """Number of decoder layers that are credited with the count before the first drop, and after each."""
        first = [layer + 1 if self.counter == "input" else max(layer, 0) for layer in layers]
        return [after - before for before, after in pairwise([0, *first, num_layers])]

    def floor(self, early_count: torch.Tensor, least: torch.Tensor, layers: tuple[int, ...], num_layers: int):
        """Smallest reachable average, `[groups]` float64.

        Parameters
        ----------
        early_count : torch.Tensor
            `[groups]`, tokens before the first drop; in all layers if there is none.
        least : torch.Tensor
            `[groups]`, tokens that must stay to the end: key tokens, one per image, newlines that always stay.
        """
        early = self.weights(layers, num_layers)[0]
        return (early * early_count.double() + (num_layers - early) * least.double()) / num_layers

    def next_count(
        self,
        available: torch.Tensor,
        processed: list[torch.Tensor],
        current: torch.Tensor,
        least: torch.Tensor,
        layers: tuple[int, ...],
        num_layers: int,
        protected: tuple[float, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Tokens to leave at the drop that follows decoder layer `len(processed) - 1`.

        Counts fall geometrically from stage to stage, but not below what must stay. What later stages are to leave is
        planned anew at each, so that rounding does not add up. A step is a handful of numbers, so it is computed on the
        host, which waits for them once.

        Parameters
        ----------
        available, current, least : torch.Tensor
            `[groups]`: tokens that can stay of the unreduced ones, tokens now, tokens that must stay.
        processed : list[torch.Tensor]
            Tokens that each layer so far received, `[groups]` each.
        layers : tuple[int, ...]
            The decoder layers after which tokens are dropped; -1 stands for "before the first layer".
        num_layers : int
            Number of decoder layers.
        protected : tuple[float, torch.Tensor], optional
            Share of what this drop leaves that later ones leave too, rounded up in each of so many parts, `[groups]`:
            so little is left that these fit.

        Returns
        -------
        torch.LongTensor
            `[groups]`.

        Raises
        ------
        UnreachableBudget
            If the layers before the first drop alone leave too little for the rest.
        """
        stage = layers.index(len(processed) - 1)
        weights = self.weights(layers, num_layers)[stage + 1 :]
        credited, device = processed if self.counter == "input" else processed[1:], current.device
        share, parts = protected or (0.0, torch.zeros_like(current))
        known = torch.stack([available, current, least, parts, *credited]).cpu()
        (available, current, least, parts), spent = known[:4], known[4:].double().sum(0)
        target = self.target(available)
        left = target * num_layers - spent
        if stage == 0 and bool((left < least * sum(weights) - 1e-6).any()):
            raise unreachable(target, self.floor(current, least, layers, num_layers), self)
        groups = zip(*(values.tolist() for values in (current, least, left, parts)), strict=True)
        factor = torch.tensor([_geometric_factor(group, share, weights) for group in groups], dtype=torch.float64)
        count = (current * factor).round().long()
        return torch.minimum(torch.maximum(count, least.long()), current.long()).to(device)


class UnreachableBudget(ValueError):
    """A budget below the smallest average that a method can leave, which the message names."""


def unreachable(target: torch.Tensor, floor: torch.Tensor, budget: Budget) -> UnreachableBudget:
    """The error for budgets below what the layers before the first drop allow."""
    worst = int((floor - target).argmax())
    option = "keep_ratio" if budget.ratio is not None else "visual_tokens"
    lowered_by = "".join(f", or lower {name}" for name in budget.lowered_by)
    return UnreachableBudget(
        f"{option}: an average of {float(target[worst]):.2f} visual tokens per {budget.scope} "
        f"(counter={budget.counter!r}) can't be reached; the smallest reachable average is {float(floor[worst]):.2f}. "
        f"Allow more tokens{lowered_by}."
    )


def _geometric_factor(group: tuple[float, ...], share: float, weights: list[int]) -> float:
    """The factor r in [0, 1] with `sum(w_i * max(fewest, count * r**i) for i = 1..) == left`, by bisection.

    A group's numbers are its `count`, `least`, `left` and `parts`; `fewest` are `least` tokens, or of the `count * r`
    the `share` and one token more for each of the `parts`, at most all.
    """
    count, least, left, parts = group
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        fewest = max(least, min(count * middle, share * count * middle + parts))
        powers = accumulate(repeat(middle, len(weights)), mul)
        cost = sum(weight * max(fewest, count * power) for weight, power in zip(weights, powers, strict=True))
        low, high = (middle, high) if cost <= left else (low, middle)
    return low
