"""Feasible sets: the valid architectures of a space whose cost lies in a window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from operator import index
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, Cost, Draw, Space
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.trellis import HUGE
from msnas_optuna.spaces.weighted import GeneValues, fixing

_C = TypeVar("_C")

Window = tuple[int | None, int | None]
"""Smallest and largest cost, both inside; None leaves an end open."""


class Windowed(ABC, Generic[A]):
    """A numbered feasible set; what is common to counted and to listed ones.

    Attributes:
        space: whose architectures they are.
        cost: what the window limits.
        window: smallest and largest cost, None where there is no limit at all.
    """

    def __init__(self, space: Space[A], cost: Cost[A] | None, *, window: Window | None) -> None:
        self.space, self.cost, self.window = space, cost, None
        self._limits = (-HUGE, HUGE)
        self._completing: tuple[tuple[Any, ...], Draw[A]] | None = None
        if window is None:
            return
        if cost is None:
            raise ValueError(f"a window needs the cost that it limits, got window={window} alone")
        try:
            low, high = (end if end is None else index(end) for end in window)
        except (TypeError, ValueError):
            low, high = 1, 0
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"window must be (low, high), whole numbers with low <= high or None where an "
                f"end is open, got {window}"
            )
        if (low, high) != (None, None):
            self.window = (low, high)
        self._limits = (
            -HUGE if low is None else min(max(low, -HUGE), HUGE),
            HUGE if high is None else min(max(high, -HUGE), HUGE),
        )

    @abstractmethod
    def count(self) -> int:
        """The exact number of feasible architectures."""

    @abstractmethod
    def _at(self, index: int) -> A: ...

    @abstractmethod
    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of many architectures are feasible.

        Args:
            chosen: for each architecture and gene the position of its value among the choices
                of the gene. shape (n, L)

        Returns:
            One truth value for each architecture. shape (n,)
        """

    @abstractmethod
    def weighted(self, weights: GeneValues) -> Draw[A]:
        """Draws each architecture in proportion to the product of its genes' weights.

        Args:
            weights: one mapping for each gene, from each of its choices to a finite weight of at
                least 0. Only ratios count.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
            ValueError: a gene has other choices than the space, or a weight is out of range.
        """

    @abstractmethod
    def best(self, scores: GeneValues) -> A:
        """The architecture with the largest sum of its genes' scores; of equal ones any.

        Args:
            scores: one mapping for each gene, from each of its choices to a finite score.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
            ValueError: a gene has other choices than the space, or a score is not finite.
        """

    @abstractmethod
    def distribution(self) -> CostDistribution:
        """How many feasible architectures have which cost.

        Raises:
            ValueError: the set has no cost.
        """

    def at(self, index: int) -> A:
        """Feasible architecture number `index`: each of 0..count-1 names a different one.

        Raises:
            IndexError: no such number.
        """
        if not 0 <= index < self.count():
            raise IndexError(f"index must lie in 0..{self.count() - 1}, got {index}")
        return self._at(index)

    def __iter__(self) -> Iterator[A]:
        """All feasible architectures in the order of their numbers."""
        return map(self._at, range(self.count()))

    @overload
    def sample(self, rng: np.random.Generator) -> A: ...

    @overload
    def sample(self, rng: np.random.Generator, n: int) -> list[A]: ...

    def sample(self, rng: np.random.Generator, n: int | None = None) -> A | list[A]:
        """One architecture, or `n` of them, drawn uniformly and independently."""
        if n is None:
            return self._at(below(self.count(), rng))
        if self.count() < 2**63:
            return [self._at(i) for i in rng.integers(self.count(), size=n).tolist()]
        return [self._at(below(self.count(), rng)) for _ in range(n)]

    def complete(self, rng: np.random.Generator, genes: Sequence[Any]) -> A | None:
        """Draws the free genes (None) uniformly from what the fixed ones leave feasible.

        Takes as long as `weighted`; a further call with the same genes as long as one draw.

        Returns:
            A feasible architecture with the fixed genes, or None where there is none.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
        """
        fixed, kept = tuple(genes), self._completing  # one read: other threads may draw too
        if kept is None or kept[0] != fixed:
            kept = self._completing = (fixed, self.weighted(fixing(fixed, self.space)))
        return kept[1].sample(rng)

    def violation(self, architecture: A) -> str | None:
        """The first broken rule of the space, or the window that the cost misses, or None."""
        broken = self.space.violation(architecture)
        if broken is not None or self.window is None or self.cost is None:
            return broken
        total = self.cost.total(architecture)
        if self._limits[0] <= total <= self._limits[1]:
            return None
        return f"{self.cost.text(total)} lie outside the window {self._window_text()}"

    def _window_text(self) -> str:
        assert self.cost is not None
        assert self.window is not None
        low, high = (None if end is None else self.cost.text(end) for end in self.window)
        if low is None:
            return f"up to {high}"
        return f"from {low} on" if high is None else f"{low} to {high}"

    def _nothing_inside(self, reachable: CostDistribution) -> str:
        assert self.cost is not None
        low, high = self._limits
        below, above = reachable.at_most(low), reachable.at_least(high)
        text = self.cost.text
        return (
            f"no valid architecture lies in the window {self._window_text()}; they cost "
            f"{text(reachable.minimum)} to {text(reachable.maximum)}, the nearest "
            f"{'nothing' if below is None else text(below)} below and "
            f"{'nothing' if above is None else text(above)} above the window: move or widen the "
            "window, or change what the cost depends on"
        )


def require_cost(cost: _C | None) -> _C:
    """The cost of a feasible set.

    Raises:
        ValueError: it has none.
    """
    if cost is None:
        raise ValueError("a distribution of costs needs a cost; give the set one")
    return cost


def below(n: int, rng: np.random.Generator) -> int:
    """A uniform whole number in 0..n-1, whatever the size of n."""
    if n <= 2**63:
        return int(rng.integers(n))
    bits = (n - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes(-(-bits // 8)), "little") >> (-bits % 8)
        if drawn < n:
            return drawn
