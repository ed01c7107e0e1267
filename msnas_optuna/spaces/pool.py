"""Draws feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables count every completion by its weight, so that a draw needs no
second attempt.

Symbols: N blocks, k FLOPs so far in units, see `Graph`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from msnas_optuna.spaces.graph import Graph, visited_of
from msnas_optuna.spaces.msnas import Architecture
from msnas_optuna.spaces.tables import Tables, Weights

_T = TypeVar("_T")


class WeightedDraw:
    """The feasible architectures, each with the product of the weights of its genes.

    Args:
        graph: what may follow what.
        window: smallest and largest cost in multiply-adds, both inside.
        weights: of every gene.
    """

    def __init__(self, graph: Graph, window: tuple[int, int], weights: Weights) -> None:
        self._graph, self._weights = graph, weights
        self._tables = {
            stride: Tables(graph, root, window, weights=weights)
            for stride, root in graph.roots.items()
        }

    def sample(self, rng: np.random.Generator) -> Architecture | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""
        tables = _choose(
            rng.random(),
            ((t, self._weights.strides[0][s] * t.total) for s, t in self._tables.items()),
        )
        return None if tables is None else self._complete(tables, rng)

    def _complete(self, tables: Tables, rng: np.random.Generator) -> Architecture | None:
        path = [s for s, t in self._tables.items() if t is tables]
        state, k = tables.root.state, 0
        chances = rng.random(len(self._graph.steps) + 1)
        for steps, weights, layer, chance in zip(
            self._graph.steps, self._weights.strides[1:], tables.layers[1:], chances, strict=False
        ):
            move = _choose(
                chance,
                (
                    ((stride, after, k + units), weights[stride] * layer[after].at(k + units))
                    for stride, (after, units) in steps[state].items()
                ),
            )
            if move is None:
                return None
            stride, state, k = move
            path.append(stride)
        reading = self._graph.utilisations[visited_of(state)]
        first, end = reading.between(*tables.left(state, k))
        vectors = reading.vectors[first:end]
        chosen = _choose(chances[-1], ((v, self._weights.of_utilisation(v)) for v in vectors))
        return None if chosen is None else Architecture(tuple(path), chosen)


def _choose(chance: float, weighed: Iterable[tuple[_T, float]]) -> _T | None:
    """An item by its weight: `chance` lies in [0, 1). None where all weigh 0."""
    items = [(item, weight) for item, weight in weighed if weight > 0]
    left = chance * sum(weight for _, weight in items)
    for item, weight in items:
        if left < weight:
            return item
        left -= weight
    return items[-1][0] if items else None  # rounding
