"""Exact counting and drawing of the valid architectures whose cost lies in a window.

What the remainder of a path may do, and cost, depends only on its state. Counting what may still
come from every (position, state, cost so far) backwards numbers the feasible set from 0 to
count - 1; a uniform draw is a uniform number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, AdditiveCost, EmptyWindowError, Genes, Space, State
from msnas_optuna.spaces.distribution import CostDistribution, closed, forward, up_to
from msnas_optuna.spaces.semirings import Counting, Scoring, as_integers
from msnas_optuna.spaces.tables import EMPTY, Row, Tables, sweep
from msnas_optuna.spaces.trellis import Graph, OfTransition, Trellis
from msnas_optuna.spaces.weighted import GeneValues, WeightedDraw, require_values
from msnas_optuna.spaces.windowed import Window, Windowed, require_cost

Through = list[dict[tuple[State, Any], int]]
"""For each position, (state before it, gene) -> a number of paths."""


class Lattice(Windowed[A]):
    """The valid architectures of a space whose cost lies in a closed window.

    The order of the numbering is that of the choices of the genes, except that the last listed
    genes of an automaton come cheapest first.

    Args:
        space: the valid architectures.
        cost: what the window limits; needed with a window only.
        window: smallest and largest cost, both inside, None where an end is open; None takes all
            valid architectures.

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
        self._counting = Counting.up_to(trellis.n_paths)
        self._entrances = sweep(self._graph, self._limits, self._counting)
        self._bounds: list[int] = list(accumulate(entrance.value for entrance in self._entrances))
        if not self._bounds[-1] and cost is not None:
            raise EmptyWindowError(self._nothing_inside(CostDistribution.of(space, cost)))

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

        Tables are flat and rows begin at multiples of the number of choices. The row behind the
        last one stands for paths that are not valid.
        """
        trellis, cost = self._graph.trellis, None if self.window is None else self.cost
        sizes = [len(d.choices) for d in self.space.distributions.values()]
        found = []
        for position, (size, next_size) in enumerate(zip(sizes, [*sizes[1:], 1], strict=True)):
            before, after = trellis.states[position : position + 2]
            choices = self.space.automaton().choices[position]
            rows = np.full((len(before) + 1) * size, len(after) * next_size)
            costs = np.zeros(rows.shape, np.int64)
            for state, moves in enumerate(trellis.moves[position]):
                for gene, reached in moves:
                    at = state * size + choices.index(gene)
                    rows[at] = reached * next_size
                    if cost is not None:
                        costs[at] = cost.step(position, before[state], gene, after[reached])
            found.append((rows, costs))
        return found

    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which architectures are feasible, by the positions of their genes' choices.

        Args:
            chosen: of each gene among its choices. shape (n, L)
        """
        base = 0 if self.cost is None or self.window is None else self.cost.base
        row, total = np.zeros(len(chosen), np.intp), np.full(len(chosen), base, np.int64)
        for (rows, costs), own in zip(self._steps, np.ascontiguousarray(chosen.T), strict=True):
            at = row + own
            row = rows.take(at)
            total += costs.take(at)
        low, high = self._limits
        valid = row < len(self._graph.trellis.states[-1])
        return np.asarray(valid & (low <= total) & (total <= high))

    def weighted(self, weights: GeneValues) -> WeightedDraw[A]:
        """See `Windowed.weighted`; takes a build of the tables."""
        return WeightedDraw(self.space, self._graph, window=self._limits, weights=weights)

    def distribution(self) -> CostDistribution:
        """See `Windowed.distribution`; counts the whole space by cost."""
        return CostDistribution.of(self.space, require_cost(self.cost)).within(*self._limits)

    def best(self, scores: GeneValues | OfTransition) -> A:
        """See `Windowed.best`.

        Args:
            scores: may also be a function of position, state before, gene and state after.
        """
        if callable(scores):
            score = scores
        else:
            require_values(scores, self.space)
            score = lambda position, _, gene, __: scores[position][gene]  # noqa: E731
        graph = self._graph.valued(score, Scoring())
        entrances = sweep(graph, self._limits, Scoring())
        beginning, tables, k, _ = max(entrances, key=lambda e: e.beginning.value + e.value)
        genes, state = [*beginning.genes], beginning.state
        for layer in tables.exits:
            reached = [e for e in layer[state] if 0 <= k - e.offset < len(e.entries)]
            move = max(reached, key=lambda e: e.value + e.entries[k - e.offset])
            genes.append(move.gene)
            state, k = move.after, k + move.cost
        first, end = tables.open_endings(state, k)
        _, endings, _, values = graph.endings[state]
        ending = endings[first + int(values[first:end].argmax())]
        return self.space.architecture((*genes, *ending))

    def through(self) -> Through:
        """The number of feasible paths through each choice in each state, exactly.

        Choices that no feasible path takes are left out.
        """
        graph, trellis = self._graph, self._graph.trellis
        found: Through = [defaultdict(int) for _ in trellis.moves]

        def mark(position: int, state: int, genes: Genes, n: int) -> None:
            for at, gene in enumerate(genes, start=position):
                found[at][trellis.states[at][state], gene] += n
                state = dict(trellis.moves[at][state])[gene]

        starts: defaultdict[Tables, list[tuple[int, int]]] = defaultdict(list)
        for beginning, tables, k, value in self._entrances:
            if value:
                mark(0, 0, beginning.genes, value)
                starts[tables].append((beginning.state, k))
        for tables, own in starts.items():
            layers = forward(graph, own, counting=self._counting, most=tables.most)
            rows = zip(trellis.chain, graph.chain, tables.rows[1:], strict=False)
            for (position, moves, after), layer in zip(rows, layers, strict=False):
                for state, row in layer.items():
                    for gene, t, cost, _ in moves[state]:
                        if n := _joined(row, after.get(t, EMPTY), cost):
                            found[position][trellis.states[position][state], gene] += n
            for state, row in next(layers).items():
                part = (state, row.first, up_to(row))
                each = closed(graph, part, window=tables.window).tolist()
                for genes, n in zip(graph.endings[state].genes, each, strict=True):
                    if n:
                        mark(trellis.chain.stop, state, genes, n)
        return found


def _joined(before: Row, after: Row, cost: int) -> int:
    """The number of paths that a move of this cost joins."""
    low, high = max(before.first, after.first - cost), min(before.end, after.end - cost)
    if low >= high:
        return 0
    left = before.values[..., low - before.first : high - before.first]
    right = after.values[..., low + cost - after.first : high + cost - after.first]
    wide = (as_integers(values) for values in (left, right))
    return int(np.dot(*(v if v.dtype == object else v.astype(np.int64) for v in wide)))
