"""A feasible set that is a list, for spaces that are small and costs that are no sum."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from math import prod
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, Cost, EmptyWindowError, InvalidArchitectureError, Space
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.weighted import GeneValues, require_values, scaled
from msnas_optuna.spaces.windowed import Window, Windowed, require_cost


class Enumerated(Windowed[A]):
    """Listed architectures of a space, those whose cost lies in a closed window.

    Args:
        space: the valid architectures.
        cost: what the window limits; needed with a window only.
        window: smallest and largest cost, both inside, None where an end is open.
        architectures: valid ones in the order of their numbers; all of the space by default.

    Raises:
        EmptyWindowError: no architecture lies inside the window.
        InvalidArchitectureError: an architecture breaks a rule of the space or comes twice.
        ValueError: the window is not two whole numbers in order, or has no cost that it limits.
    """

    def __init__(
        self,
        space: Space[A],
        cost: Cost[A] | None = None,
        *,
        window: Window | None = None,
        architectures: Iterable[A] | None = None,
    ) -> None:
        super().__init__(space, cost, window=window)
        listed = [*(Lattice(space) if architectures is None else architectures)]
        for number, architecture in enumerate(listed):
            broken = space.violation(architecture)
            if broken is not None:
                raise InvalidArchitectureError(f"architectures[{number}]: {broken}; leave it out")
        if len(set(listed)) < len(listed):
            raise InvalidArchitectureError("an architecture is listed twice; list each once")
        totals = [0 if cost is None else cost.total(a) for a in listed]
        low, high = self._limits
        self._listed = [a for a, total in zip(listed, totals, strict=True) if low <= total <= high]
        if not self._listed:
            if self.window is None:
                raise EmptyWindowError("no architecture is listed; give at least one")
            raise EmptyWindowError(self._nothing_inside(CostDistribution.of_totals(totals)))
        self._members = frozenset(self._listed)

    def __reduce__(self) -> tuple[Callable[[], Enumerated[A]], tuple[()]]:
        listed = partial(Enumerated, self.space, self.cost, architectures=self._listed)
        return partial(listed, window=self.window), ()

    def count(self) -> int:
        """The number of feasible architectures."""
        return len(self._listed)

    def _at(self, index: int) -> A:
        return self._listed[index]

    def violation(self, architecture: A) -> str | None:
        """The first broken rule of the space, the window that the cost misses, or None.

        What is not listed breaks a rule too.
        """
        broken = super().violation(architecture)
        if broken is None and architecture not in self._members:
            return f"it is none of the {self.count()} listed architectures"
        return broken

    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which architectures, as positions of their genes' choices, are listed. [n, L] -> [n]."""
        choices = [d.choices for d in self.space.distributions.values()]
        genes = (tuple(c[i] for c, i in zip(choices, row, strict=True)) for row in chosen.tolist())
        found = [self.space.architecture(own) in self._members for own in genes]
        return np.array(found, dtype=bool)

    def weighted(self, weights: GeneValues) -> WeightedList[A]:
        """See `Windowed.weighted`."""
        known = scaled(weights, self.space)
        products = [
            prod(w[gene] for w, gene in zip(known, self.space.genes(a), strict=True))
            for a in self._listed
        ]
        return WeightedList(self._listed, products)

    def best(self, scores: GeneValues) -> A:
        """See `Windowed.best`."""
        require_values(scores, self.space)
        return max(
            self._listed,
            key=lambda a: sum(s[g] for s, g in zip(scores, self.space.genes(a), strict=True)),
        )

    def distribution(self) -> CostDistribution:
        """See `Windowed.distribution`."""
        return CostDistribution.of_totals(map(require_cost(self.cost).total, self._listed))


class WeightedList(Generic[A]):
    """Listed architectures, each with a weight of at least 0."""

    def __init__(self, architectures: Sequence[A], weights: Sequence[float]) -> None:
        weighed = [(a, w) for a, w in zip(architectures, weights, strict=True) if w > 0]
        self._architectures = [a for a, _ in weighed]
        self._bounds = [*accumulate(w for _, w in weighed)]

    @property
    def total(self) -> float:
        """The weight of all architectures, where 1 is the largest weight of a gene."""
        return self._bounds[-1] if self._bounds else 0.0

    def sample(self, rng: np.random.Generator) -> A | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""
        if not self._bounds:
            return None
        found = bisect_right(self._bounds, rng.random() * self.total)
        return self._architectures[min(found, len(self._architectures) - 1)]  # rounding
