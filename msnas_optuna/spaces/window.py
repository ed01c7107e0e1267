"""Feasible sets: the valid architectures of a space whose cost lies in a window."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import inf
from operator import index
from typing import Any, Generic, TypeVar, overload

import numpy as np

from msnas_optuna.spaces.base import (
    A,
    Cost,
    Draw,
    FeasibleSet,
    GeneValues,
    InvalidArchitectureError,
    Space,
)
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.trellis import HUGE

_T = TypeVar("_T")

Window = tuple[int | None, int | None]
"""Smallest and largest cost, both inside; None leaves an end open."""


class WindowedSet(FeasibleSet[A]):
    """A numbered feasible set; what is common to counted and to listed ones."""

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
    def _at(self, index: int) -> A: ...

    @abstractmethod
    def _weighted(self, weights: GeneValues) -> Draw[A]: ...

    @abstractmethod
    def _best(self, scores: GeneValues) -> A: ...

    @abstractmethod
    def _every_cost(self) -> CostDistribution:
        """How many architectures, inside the window or not, have which cost."""

    def at(self, index: int) -> A:
        """Feasible architecture number `index`, 0..count-1, all different; else IndexError."""
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
        return [self._at(below(self.count(), rng)) for _ in range(n)]

    def complete(self, rng: np.random.Generator, genes: Sequence[Any]) -> A | None:
        """See `FeasibleSet.complete`.

        Takes as long as `weighted`; a further call with the same genes as long as one draw.
        """
        fixed, kept = tuple(genes), self._completing  # one read: other threads may draw too
        if kept is None or kept[0] != fixed:
            require_genes(fixed, self.space)
            choices = (d.choices for d in self.space.distributions.values())
            weights = [
                {choice: float(gene is None or choice == gene) for choice in own}
                for gene, own in zip(fixed, choices, strict=True)
            ]
            kept = self._completing = (fixed, self._weighted(weights))
        return kept[1].sample(rng)

    def weighted(self, weights: GeneValues) -> Draw[A]:
        """See `FeasibleSet.weighted`."""
        require_values(weights, self.space, least=0)
        relative = []
        for own in weights:
            most = max(own.values()) or 1.0  # relative to 1, products stay in range
            relative.append({choice: weight / most for choice, weight in own.items()})
        return self._weighted(relative)

    def best(self, scores: GeneValues) -> A:
        """The architecture with the largest sum of its genes' scores; of equal ones any.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
            ValueError: a gene has other choices than the space, or a score is not finite.
        """
        require_values(scores, self.space)
        return self._best(scores)

    def distribution(self) -> CostDistribution:
        """How many feasible architectures have which cost; ValueError for a set without one."""
        if self.cost is None:
            raise ValueError("a distribution of costs needs a cost; give the set one")
        return self._every_cost().within(*self._limits)

    def violation(self, architecture: A) -> str | None:
        """The first broken rule of the space, or the window that the cost misses, or None."""
        return violation(self.space, self.cost, self.window, architecture)

    def _nothing_inside(self) -> str:
        assert self.cost is not None
        assert self.window is not None
        reachable, text = self._every_cost(), self.cost.text
        below, above = reachable.at_most(self._limits[0]), reachable.at_least(self._limits[1])
        return (
            f"no valid architecture lies in the window {_text(self.cost, self.window)}; they cost "
            f"{text(reachable.minimum)} to {text(reachable.maximum)}, the nearest "
            f"{'nothing' if below is None else text(below)} below and "
            f"{'nothing' if above is None else text(above)} above the window: move or widen the "
            "window, or change what the cost depends on"
        )


def violation(
    space: Space[A], cost: Cost[A] | None, window: Window | None, architecture: A
) -> str | None:
    """The first broken rule of the space, or the window that the cost misses, or None."""
    broken = space.violation(architecture)
    if broken is not None or window is None or cost is None:
        return broken
    total, (low, high) = cost.total(architecture), window
    if (low is None or low <= total) and (high is None or total <= high):
        return None
    return f"{cost.text(total)} lie outside the window {_text(cost, window)}"


def _text(cost: Cost[Any], window: Window) -> str:
    low, high = (None if end is None else cost.text(end) for end in window)
    if low is None:
        return f"up to {high}"
    return f"from {low} on" if high is None else f"{low} to {high}"


def require_genes(given: Sequence[Any], space: Space[Any]) -> None:
    """Raises InvalidArchitectureError unless there is one entry for each gene."""
    if len(given) != len(space.distributions):
        raise InvalidArchitectureError(
            f"the space has {len(space.distributions)} genes, got {len(given)} entries; give one "
            "for each parameter, in their order"
        )


def require_values(values: GeneValues, space: Space[Any], *, least: float = -inf) -> None:
    """Sees to it that each choice of each gene has a finite value of at least `least`.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
        ValueError: a gene has other choices, or a value is out of range.
    """
    require_genes(values, space)
    for own, (name, distribution) in zip(values, space.distributions.items(), strict=True):
        in_range = all(least <= value < inf and value > -inf for value in own.values())
        if set(own) != set(distribution.choices) or not in_range:
            limit = "" if least == -inf else f" of at least {least:g}"
            raise ValueError(
                f"each of {list(distribution.choices)} of {name} must have a finite value{limit}, "
                f"got {dict(own)}"
            )


def below(n: int, rng: np.random.Generator) -> int:
    """A uniform whole number in 0..n-1, whatever the size of n."""
    if n <= 2**63:
        return int(rng.integers(n))
    bits = (n - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes(-(-bits // 8)), "little") >> (-bits % 8)
        if drawn < n:
            return drawn


class WeightedChoice(Generic[_T]):
    """Things to draw one of, each with a weight."""

    __slots__ = ("_bounds", "things", "total")

    def __init__(self) -> None:
        self.things: list[_T] = []
        self._bounds: list[float] = []
        self.total = 0.0

    def add(self, thing: _T, weight: float) -> None:
        """One more possibility, unless its weight is 0."""
        if weight > 0:
            self.total += weight
            self._bounds.append(self.total)
            self.things.append(thing)

    def at(self, chance: float) -> int:
        """The position of the one at a share of the total, in [0, 1)."""
        found = bisect_right(self._bounds, chance * self.total)
        return found if found < len(self.things) else found - 1  # rounding

    def sample(self, rng: np.random.Generator) -> _T | None:
        """One of them, with a chance proportional to its weight; None if all weigh 0."""
        return self.things[self.at(rng.random())] if self.total else None
