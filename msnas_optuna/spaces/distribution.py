"""How many architectures of a space have which cost, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, AdditiveCost, Space
from msnas_optuna.spaces.semirings import Counting
from msnas_optuna.spaces.tables import Part, reachable, summed, sweep
from msnas_optuna.spaces.trellis import HUGE, Graph, Trellis


@dataclass(frozen=True, eq=False)
class CostDistribution:
    """How many architectures have which cost, exactly; T different costs."""

    totals: NDArray[np.int64]  # [T], ascending
    counts: NDArray[Any]  # [T], whole numbers of any size

    @classmethod
    def of(cls, space: Space[A], cost: AdditiveCost[A]) -> CostDistribution:
        """Counts all valid architectures of a space by cost."""
        graph = Graph.of(Trellis.of(space.automaton()), cost)
        counting = Counting(graph.trellis.n_paths)
        starts: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for beginning in graph.beginnings:
            k, remainder = divmod(beginning.cost, graph.unit)
            starts[remainder].append((beginning.state, k))
        # States whose endings cost the same, but for a constant, are summed first.
        alike: defaultdict[tuple[int, bytes], list[Part]] = defaultdict(list)
        one = np.ones(1, np.int64)
        for remainder, own in starts.items():
            reachable(graph, own)  # refuses what is too large
            parts: defaultdict[int, list[Part]] = defaultdict(list)
            for state, k in own:
                parts[state].append((k, one, 1))
            for moves in graph.chain:
                before, parts = parts, defaultdict(list)
                for state, given in before.items():
                    row = summed(given, -HUGE, HUGE, semiring=counting)
                    for _, after, paid, _ in moves[state]:
                        parts[after].append((row.first + paid, row.values, 1))
            for state, given in parts.items():
                costs = graph.endings[state].costs
                units, rest = divmod(remainder + int(costs[0]), graph.unit)
                same = alike[rest, (costs - costs[0]).tobytes()]
                same += [(k + units, values, 1) for k, values, _ in given]
        # Costs of different remainders never meet, so that each remainder sums on its own.
        classes: defaultdict[int, list[Part]] = defaultdict(list)
        for (remainder, relative), same in alike.items():
            row = summed(same, -HUGE, HUGE, semiring=counting)
            for ending in np.frombuffer(relative, np.int64).tolist():
                units, rest = divmod(remainder + ending, graph.unit)
                classes[rest].append((row.first + units, row.values, 1))
        totals: list[NDArray[np.int64]] = []
        counts: list[NDArray[Any]] = []
        for remainder, same in classes.items():
            row = summed(same, -HUGE, HUGE, semiring=counting)
            (used,) = row.values.nonzero()
            totals.append(remainder + graph.unit * (row.first + used))
            counts.append(row.values[used].astype(counting.dtype))
        flat = np.concatenate(totals)
        order = np.argsort(flat)
        return cls(flat[order], np.concatenate(counts)[order])

    @classmethod
    def of_totals(cls, totals: Iterable[int]) -> CostDistribution:
        """Counts listed costs."""
        return cls(*np.unique(np.array([*totals], np.int64), return_counts=True))

    def within(self, low: int, high: int) -> CostDistribution:
        """The part that costs low..high, both inside."""
        chosen = slice(self._below(low), self._below(high + 1))
        return CostDistribution(self.totals[chosen], self.counts[chosen])

    @cached_property
    def _up_to(self) -> NDArray[Any]:
        """Architectures among the i cheapest totals, 0 <= i <= T."""
        return np.append(0, np.cumsum(self.counts))

    @property
    def minimum(self) -> int:
        """The smallest cost."""
        return int(self.totals[0])

    @property
    def maximum(self) -> int:
        """The largest cost."""
        return int(self.totals[-1])

    def count(self, low: int | None = None, high: int | None = None) -> int:
        """Architectures that cost low..high, both inside; None leaves a side open."""
        first = 0 if low is None else self._below(low)
        end = len(self.totals) if high is None else self._below(high + 1)
        return int(self._up_to[end] - self._up_to[first]) if first < end else 0

    def at_most(self, target: int) -> int | None:
        """The largest cost of at most `target`, or None where all cost more."""
        end = self._below(target + 1)
        return int(self.totals[end - 1]) if end else None

    def at_least(self, target: int) -> int | None:
        """The smallest cost of at least `target`, or None where all cost less."""
        first = self._below(target)
        return int(self.totals[first]) if first < len(self.totals) else None

    def quantile(self, q: float) -> int:
        """The smallest cost that at least the share `q`, 0..1, of all keep to; else ValueError."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        needed = max(ceil(Fraction(q) * self.count()), 1)
        return int(self.totals[np.searchsorted(self._up_to, needed) - 1])

    def _below(self, target: int) -> int:
        """How many totals are smaller than `target`."""
        return int(np.searchsorted(self.totals, min(max(target, -HUGE - 1), HUGE + 1)))


def counts_inside(
    space: Space[A], costs: Iterable[AdditiveCost[A]], *, window: tuple[int, int]
) -> list[int]:
    """Counts the valid architectures inside a window, which may hold none, under each cost."""
    trellis = Trellis.of(space.automaton())
    low, high = (min(max(end, -HUGE), HUGE) for end in window)
    counting = Counting(trellis.n_paths)
    return [
        sum(int(e.value) for e in sweep(Graph.of(trellis, cost), (low, high), counting))
        for cost in costs
    ]
