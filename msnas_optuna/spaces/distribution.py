"""How many architectures of a space have which cost, exactly."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, AdditiveCost, Space
from msnas_optuna.spaces.semirings import Counting, as_integers
from msnas_optuna.spaces.tables import Part, Row, reachable, summed
from msnas_optuna.spaces.trellis import HUGE, Graph, Trellis


@dataclass(frozen=True, eq=False)
class CostDistribution:
    """How many architectures have which cost, exactly.

    Attributes:
        totals: every cost that occurs, ascending. shape (T,)
        counts: architectures with that cost, whole numbers of any size. shape (T,)
    """

    totals: NDArray[np.int64]
    counts: NDArray[Any]

    @classmethod
    def of(cls, space: Space[A], cost: AdditiveCost[A]) -> CostDistribution:
        """Counts all valid architectures of a space by cost."""
        graph = Graph.of(Trellis.of(space.automaton()), cost)
        counting = Counting.up_to(graph.trellis.n_paths)
        starts: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for beginning in graph.beginnings:
            k, remainder = divmod(beginning.cost, graph.unit)
            starts[remainder].append((beginning.state, k))
        # States whose endings cost the same, but for a constant, are summed first.
        alike: defaultdict[tuple[int, bytes], list[Part]] = defaultdict(list)
        for remainder, own in starts.items():
            (last,) = deque(forward(graph, own, counting=counting), maxlen=1)
            for state, row in last.items():
                costs = graph.endings[state].costs
                units, rest = divmod(remainder + int(costs[0]), graph.unit)
                part = (row.first + units, row.values, 1)
                alike[rest, (costs - costs[0]).tobytes()].append(part)
        classes: defaultdict[int, list[Part]] = defaultdict(list)
        for (remainder, relative), parts in alike.items():
            row = summed(parts, -HUGE, HUGE, semiring=counting)
            for ending in np.frombuffer(relative, np.int64).tolist():
                units, rest = divmod(remainder + ending, graph.unit)
                classes[rest].append((row.first + units, row.values, 1))
        # Costs of different remainders never meet, so that each remainder sums on its own.
        totals, counts = [], []
        for remainder, parts in classes.items():
            row = summed(parts, -HUGE, HUGE, semiring=counting)
            values = as_integers(row.values)
            (used,) = values.nonzero()
            totals.append(remainder + graph.unit * (row.first + used))
            counts.append(values[used])
        flat = np.concatenate(totals)
        order = np.argsort(flat)
        every = np.concatenate(counts)[order]
        return cls(flat[order], every if every.dtype == object else every.astype(np.int64))

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
        return np.concatenate([np.zeros(1, self.counts.dtype), np.cumsum(self.counts)])

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
        """The smallest cost that at least the share `q`, 0..1, of all architectures keep to.

        Raises:
            ValueError: `q` lies outside 0..1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        needed = max(ceil(Fraction(q) * self.count()), 1)
        return int(self.totals[np.searchsorted(self._up_to, needed) - 1])

    def _below(self, target: int) -> int:
        """How many totals are smaller than `target`."""
        return int(np.searchsorted(self.totals, min(max(target, -HUGE - 1), HUGE + 1)))


def forward(
    graph: Graph,
    starts: Iterable[tuple[int, int]],
    *,
    counting: Counting,
    most: int = HUGE,
) -> Iterator[dict[int, Row]]:
    """The number of ways to each (state, k) of the chain, layer by layer.

    Args:
        graph: what may follow what.
        starts: the states in which the chain may begin and k there, once for each way there.
        counting: how to count.
        most: ways with a larger k are left out.
    """
    starts = [*starts]
    reachable(graph, starts, most=most)  # refuses what is too large
    parts: defaultdict[int, list[Part]] = defaultdict(list)
    for state, k in starts:
        parts[state].append((k, counting.one(), 1))
    for moves in (*graph.chain, ()):
        layer = {s: summed(p, -HUGE, most, semiring=counting) for s, p in parts.items()}
        yield layer
        parts = defaultdict(list)
        for state, row in layer.items():
            for _, after, cost, _ in moves[state] if moves else ():
                parts[after].append((row.first + cost, row.values, 1))


def counts_inside(
    space: Space[A], costs: Iterable[AdditiveCost[A]], *, window: tuple[int, int]
) -> list[int]:
    """Counts the valid architectures inside a window under each of several costs.

    Costs whose chains differ in one common factor, as those of several widths do, share the
    paths: each further one takes milliseconds.

    Args:
        space: the valid architectures.
        costs: each of them may be any.
        window: smallest and largest cost, both inside; it may hold nothing.
    """
    trellis = Trellis.of(space.automaton())
    counting = Counting.up_to(trellis.n_paths)
    low, high = (min(max(end, -HUGE), HUGE) for end in window)
    counts, chain = [], None
    paths: dict[int, list[tuple[int, int, NDArray[Any]]]] = {}
    for cost in costs:
        graph = Graph.of(trellis, cost)
        if chain != graph.chain:
            chain, paths = graph.chain, {}
            for state in {beginning.state for beginning in graph.beginnings}:
                (last,) = deque(forward(graph, [(state, 0)], counting=counting), maxlen=1)
                paths[state] = [(s, row.first, up_to(row)) for s, row in last.items()]
        counts.append(
            sum(
                int(closed(graph, part, window=(low - b.cost, high - b.cost)).sum())
                for b in graph.beginnings
                for part in paths[b.state]
            )
        )
    return counts


def up_to(row: Row) -> NDArray[Any]:
    """The sum of the first i counts, 0 <= i <= n; shape (n + 1,)."""
    return np.cumsum(np.append(0, as_integers(row.values)))


def closed(
    graph: Graph, paths: tuple[int, int, NDArray[Any]], *, window: tuple[int, int]
) -> NDArray[Any]:
    """How many paths to one state each of its endings closes inside a window; shape (E,).

    Args:
        graph: what may follow what.
        paths: the state, the first k and the number of paths up to each k, see `up_to`.
        window: smallest and largest cost of chain and ending, both inside.
    """
    state, k, numbers = paths
    costs, last = graph.endings[state].costs, len(numbers) - 1
    first = np.clip(-((costs - window[0]) // graph.unit) - k, 0, last)  # rounds up
    end = np.clip((window[1] - costs) // graph.unit + 1 - k, 0, last)
    found: NDArray[Any] = np.maximum(numbers[end] - numbers[first], 0)
    return found
