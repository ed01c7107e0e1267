"""Draws feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables count every completion by its weight, so that a draw needs no
second attempt.

Symbols: N blocks, k FLOPs so far in units, see `Graph`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np

from msnas_optuna.spaces.graph import Graph, visited_of
from msnas_optuna.spaces.msnas import Architecture
from msnas_optuna.spaces.tables import Tables, Weights

_T = TypeVar("_T", bound=Hashable)

_Move = tuple[float, int, int]
"""Stride of the next block, state after it, k after it."""


class WeightedDraw:
    """The feasible architectures, each with the product of the weights of its genes.

    Weights are floating-point numbers: what is 1e-300 times as likely as what the largest weights
    would give may be lost.

    Args:
        graph: what may follow what.
        window: smallest and largest cost in multiply-adds, both inside.
        weights: of every gene.
    """

    def __init__(self, graph: Graph, window: tuple[int, int], weights: Weights) -> None:
        self._graph, self._weights = graph, (weights := weights.scaled())
        self._tables = {
            stride: Tables(graph, root, window, weights=weights)
            for stride, root in graph.roots.items()
        }
        self._first = _Choice(
            (s, weights.strides[0][s] * t.total) for s, t in self._tables.items()
        )
        # What a draw has met is kept: most draws of a converged population meet the same.
        self._moves: dict[tuple[float, int, int, int], _Choice[_Move]] = {}
        self._utilisations: dict[tuple[float, int, int], _Choice[tuple[int, ...]]] = {}

    def sample(self, rng: np.random.Generator) -> Architecture | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""
        if not self._first.total:
            return None
        chances = rng.random(len(self._graph.steps) + 2).tolist()
        root = self._first.at(chances[0])
        path, state, k = [root], self._tables[root].root.state, 0
        for block in range(1, len(self._graph.steps) + 1):
            key = (root, block, state, k)
            moves = self._moves.get(key)
            if moves is None:
                moves = self._moves[key] = self._after(*key)
            stride, state, k = moves.at(chances[block])
            path.append(stride)
        end = (root, state, k)
        utilisations = self._utilisations.get(end)
        if utilisations is None:
            utilisations = self._utilisations[end] = self._readable(*end)
        return Architecture(tuple(path), utilisations.at(chances[-1]))

    def _after(self, root: float, block: int, state: int, k: int) -> _Choice[_Move]:
        """The strides of a block (0-based position), by the weight of all their completions."""
        weights, layer = self._weights.strides[block], self._tables[root].layers[block]
        return _Choice(
            ((stride, after, k + units), weights[stride] * layer[after].at(k + units))
            for stride, (after, units) in self._graph.steps[block - 1][state].items()
        )

    def _readable(self, root: float, state: int, k: int) -> _Choice[tuple[int, ...]]:
        """The utilisations that end a path inside the window."""
        reading = self._graph.utilisations[visited_of(state)]
        first, end = reading.between(*self._tables[root].left(state, k))
        return _Choice((v, self._weights.of_utilisation(v)) for v in reading.vectors[first:end])


class _Choice(Generic[_T]):
    """One of some items, by their weights."""

    def __init__(self, weighed: Iterable[tuple[_T, float]]) -> None:
        kept = [(item, weight) for item, weight in weighed if weight > 0]
        self._items = [item for item, _ in kept]
        self._bounds = list(accumulate(weight for _, weight in kept))
        self.total = self._bounds[-1] if kept else 0.0

    def at(self, chance: float) -> _T:
        """The item at a share of the total, in [0, 1)."""
        found = bisect_right(self._bounds, chance * self.total)
        return self._items[min(found, len(self._items) - 1)]  # rounding
