"""A feasible set that is a list, for spaces that are small and costs that are no sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import (
    A,
    Cost,
    EmptyWindowError,
    GeneValues,
    InvalidArchitectureError,
    Space,
)
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.window import WeightedChoice, Window, WindowedSet


class Enumeration(WindowedSet[A]):
    """Listed architectures of a space, those whose cost lies in a closed window.

    By default all of the space are listed; the order is that of the numbers. See `Lattice`.

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
        if not listed:
            raise EmptyWindowError("no architecture is listed; give at least one")
        self._totals = [0 if cost is None else cost.total(a) for a in listed]
        low, high = self._limits
        pairs = zip(listed, self._totals, strict=True)
        self._listed = [a for a, total in pairs if low <= total <= high]
        if not self._listed:
            raise EmptyWindowError(self._nothing_inside())
        self._members = frozenset(self._listed)

    def __reduce__(self) -> tuple[Callable[[], Enumeration[A]], tuple[()]]:
        listed = partial(Enumeration, self.space, self.cost, architectures=self._listed)
        return partial(listed, window=self.window), ()

    def count(self) -> int:
        """The number of feasible architectures."""
        return len(self._listed)

    def _at(self, index: int) -> A:
        return self._listed[index]

    def violation(self, architecture: A) -> str | None:
        """See `WindowedSet.violation`; what is not listed breaks a rule too."""
        broken = super().violation(architecture)
        if broken is None and architecture not in self._members:
            return f"it is none of the {self.count()} listed architectures"
        return broken

    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """See `FeasibleSet.contains`."""
        choices = [d.choices for d in self.space.distributions.values()]
        genes = (tuple(c[i] for c, i in zip(choices, row, strict=True)) for row in chosen.tolist())
        found = [self.space.architecture(own) in self._members for own in genes]
        return np.array(found, dtype=bool)

    def _weighted(self, weights: GeneValues) -> WeightedChoice[A]:
        found: WeightedChoice[A] = WeightedChoice()
        for a in self._listed:
            genes = self.space.genes(a)
            found.add(a, prod(own[gene] for own, gene in zip(weights, genes, strict=True)))
        return found

    def _best(self, scores: GeneValues) -> A:
        return max(
            self._listed,
            key=lambda a: sum(s[g] for s, g in zip(scores, self.space.genes(a), strict=True)),
        )

    def _every_cost(self) -> CostDistribution:
        return CostDistribution.of_totals(self._totals)
