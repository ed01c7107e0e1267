"""How many architectures of a space have which cost, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.methods.msnas.space import (
    MSNASSpace,
)
from msnas_optuna.spaces.graph import (
    HUGE,
    AdditiveCost,
    Graph,
    Root,
    require_exact,
    visited_of,
)
from msnas_optuna.spaces.tables import Part, span, summed


@dataclass(frozen=True, eq=False)
class FlopsDistribution:
    """How many valid architectures of a space have which cost, exactly.

    Attributes:
        totals: every cost that occurs, in multiply-adds, ascending. shape (T,)
        counts: valid architectures with that cost. shape (T,)
    """

    totals: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, space: MSNASSpace, cost: AdditiveCost) -> FlopsDistribution:
        """Counts all valid architectures of `space` (V1-V3) by cost."""
        require_exact(space.n_blocks)
        graph = Graph.of(space.n_blocks, cost)
        classes: defaultdict[int, list[Part]] = defaultdict(list)
        for root in graph.roots.values():
            for visited, (k, counts) in _paths_by_cost(graph, root):
                for heads in graph.utilisations[visited].costs:
                    units, remainder = divmod(root.base + heads, graph.unit)
                    classes[remainder].append((k + units, counts))
        # Costs of different remainders never meet, so that each remainder sums on its own.
        by_remainder = {
            r: (span(parts)[0], summed(parts, *span(parts))) for r, parts in classes.items()
        }
        totals = [r + graph.unit * (k + c.nonzero()[0]) for r, (k, c) in by_remainder.items()]
        flat, counts = (
            np.concatenate(totals),
            np.concatenate([c[c > 0] for _, c in by_remainder.values()]),
        )
        order = np.argsort(flat)
        return cls(flat[order], counts[order])

    @cached_property
    def _up_to(self) -> NDArray[np.int64]:
        """Architectures among the i cheapest totals, 0 <= i <= T."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @property
    def minimum(self) -> int:
        """The smallest cost."""
        return int(self.totals[0])

    @property
    def maximum(self) -> int:
        """The largest cost."""
        return int(self.totals[-1])

    def count(self, low: int | None = None, high: int | None = None) -> int:
        """Valid architectures that cost low..high, both inside; None leaves a side open."""
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
        return int(np.searchsorted(self.totals, min(max(target, -1), HUGE)))


def _paths_by_cost(graph: Graph, root: Root) -> list[tuple[int, Part]]:
    """V as a bit set and the number of paths by k, for each state after block N."""
    layer: dict[int, Part] = {root.state: (0, np.ones(1, np.int64))}
    for steps in graph.steps:
        parts: defaultdict[int, list[Part]] = defaultdict(list)
        for state, (k, counts) in layer.items():
            for after, units in steps[state].values():
                parts[after].append((k + units, counts))
        layer = {s: (span(p)[0], summed(p, *span(p))) for s, p in parts.items()}
    return [(visited_of(s), (k + graph.closing[s], counts)) for s, (k, counts) in layer.items()]


def counts_inside(
    space: MSNASSpace, costs: Iterable[AdditiveCost], *, window: tuple[int, int]
) -> list[int]:
    """Counts the valid architectures (V1-V3) inside a window under each of several costs.

    Costs whose blocks differ in one common factor, as those of several widths do, share the
    paths: each further one takes milliseconds.

    Args:
        space: the valid architectures.
        costs: each in multiply-adds.
        window: smallest and largest cost, both inside; it may hold nothing.
    """
    require_exact(space.n_blocks)
    low, high = (min(max(end, -1), HUGE) for end in window)
    counts, shared, paths = [], None, {}
    for cost in costs:
        graph = Graph.of(space.n_blocks, cost)
        if shared is None or (graph.steps, graph.closing) != (shared.steps, shared.closing):
            shared = graph
            paths = {root.state: _paths_up_to(graph, root) for root in graph.roots.values()}
        counts.append(
            sum(
                _within(graph, part, low=low - root.base, high=high - root.base)
                for root in graph.roots.values()
                for part in paths[root.state]
            )
        )
    return counts


def _paths_up_to(graph: Graph, root: Root) -> list[tuple[int, Part]]:
    """V as a bit set and, for each state after block N, the paths that cost less than each k."""
    return [
        (visited, (k, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])))
        for visited, (k, counts) in _paths_by_cost(graph, root)
    ]


def _within(graph: Graph, paths: tuple[int, Part], *, low: int, high: int) -> int:
    """Architectures of one state whose blocks 2..N, laterals and heads cost low..high."""
    visited, (k, up_to) = paths
    heads = np.array(graph.utilisations[visited].costs, np.int64)
    last = len(up_to) - 1
    first = np.clip(-((heads - low) // graph.unit) - k, 0, last)  # rounds up
    end = np.clip((high - heads) // graph.unit + 1 - k, 0, last)
    return int(np.maximum(up_to[end] - up_to[first], 0).sum())
