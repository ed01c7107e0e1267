"""Exact counting and drawing of the valid architectures whose cost lies in a window.

What the remainder of a path may do, and cost, depends only on its state. Counting what may still
come from every (position, state, cost so far) backwards numbers the feasible set from 0 to
count - 1; a uniform draw is a uniform number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, AdditiveCost, EmptyWindowError, GeneValues, Space
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.semirings import Counting, Scoring
from msnas_optuna.spaces.tables import sweep
from msnas_optuna.spaces.trellis import Graph, Trellis
from msnas_optuna.spaces.weighted import WeightedDraw
from msnas_optuna.spaces.window import Window, WindowedSet


class Lattice(WindowedSet[A]):
    """The valid architectures of a space whose cost lies in a closed window, or all without one.

    The order of the numbering is that of the choices of the genes, except that the last listed
    genes of an automaton come cheapest first.

    Raises:
        EmptyWindowError: no valid architecture lies inside the window.
        ValueError: the window is not two whole numbers in order, or has no cost that it limits.
    """

    cost: AdditiveCost[A] | None

    def __init__(
        self, space: Space[A], cost: AdditiveCost[A] | None = None, *, window: Window | None = None
    ) -> None:
        super().__init__(space, cost, window=window)
        trellis = Trellis.of(space.automaton())
        self._graph = Graph.of(trellis, None if self.window is None else cost)
        self._entrances = sweep(self._graph, self._limits, Counting(trellis.n_paths))
        self._bounds: list[int] = list(accumulate(entrance.value for entrance in self._entrances))
        if not self._bounds[-1]:
            raise EmptyWindowError(self._nothing_inside())

    def __reduce__(self) -> tuple[Callable[[], Lattice[A]], tuple[()]]:
        # Rebuilding takes less than reading the tables back.
        return partial(Lattice, self.space, self.cost, window=self.window), ()

    def count(self) -> int:
        """The exact number of feasible architectures."""
        return self._bounds[-1]

    def _at(self, index: int) -> A:
        number = bisect_right(self._bounds, index)
        beginning, tables, k, _ = self._entrances[number]
        if number:
            index -= self._bounds[number - 1]
        genes, ending = tables.path(beginning.state, k, index)
        return self.space.architecture((*beginning.genes, *genes, *ending))

    @cached_property
    def _steps(self) -> list[tuple[NDArray[np.intp], NDArray[np.int64]]]:
        """For each position two tables by state and choice: row of the state after it, cost.

        Flat; rows begin at multiples of the number of choices, the row behind the last is invalid.
        """
        distributions = list(self.space.distributions.values())
        next_sizes = [*(len(d.choices) for d in distributions[1:]), 1]
        found = []
        for position, (own, next_size) in enumerate(zip(distributions, next_sizes, strict=True)):
            before, after = self._graph.trellis.states[position : position + 2]
            number = {gene: i for i, gene in enumerate(own.choices)}
            rows = np.full((len(before) + 1) * len(number), len(after) * next_size)
            costs = np.zeros(rows.shape, np.int64)
            for state, moves in enumerate(self._graph.moves[position]):
                for gene, reached, cost, _ in moves:
                    at = state * len(number) + number[gene]
                    rows[at], costs[at] = reached * next_size, cost
            found.append((rows, costs))
        return found

    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """See `FeasibleSet.contains`."""
        row = np.zeros(len(chosen), np.intp)
        total = np.full(len(chosen), self._graph.base, np.int64)
        for (rows, costs), own in zip(self._steps, np.ascontiguousarray(chosen.T), strict=True):
            at = row + own
            row = rows.take(at)
            total += costs.take(at)
        low, high = self._limits
        valid = row < len(self._graph.trellis.states[-1])
        return np.asarray(valid & (low <= total) & (total <= high))

    def _weighted(self, weights: GeneValues) -> WeightedDraw[A]:
        return WeightedDraw(self.space, self._graph, window=self._limits, weights=weights)

    def _every_cost(self) -> CostDistribution:
        assert self.cost is not None
        return CostDistribution.of(self.space, self.cost)

    def _best(self, scores: GeneValues) -> A:
        graph = self._graph.valued(scores, Scoring())
        entrances = sweep(graph, self._limits, Scoring())
        beginning, tables, k, _ = max(entrances, key=lambda e: e.beginning.value + e.value)
        genes: list[Any] = [*beginning.genes]
        state = beginning.state
        for layer in tables.exits:
            reached = [e for e in layer[state] if 0 <= k - e.offset < len(e.entries)]
            move = max(reached, key=lambda e: e.value + e.entries[k - e.offset])
            genes.append(move.gene)
            state, k = move.after, k + move.cost
        first, end = tables.open_endings(state, k)
        _, endings, values = graph.endings[state]
        return self.space.architecture((*genes, *endings[first + int(values[first:end].argmax())]))
