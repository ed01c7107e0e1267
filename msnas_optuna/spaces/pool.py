"""Draws feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables count every completion by its weight, so that a draw needs no
second attempt.

Symbols: N blocks, k FLOPs so far in units, see `Graph`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.spaces.graph import Graph, visited_of
from msnas_optuna.spaces.tables import Tables, Weights

_Place = tuple[float, int, int, int]
"""Where a path has come to: stride of the first block, blocks so far, state, k."""


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
            (s, (s, 1, t.root.state, 0), weights.strides[0][s] * t.total)
            for s, t in self._tables.items()
        )
        # What a draw has met is kept: most draws of a converged population meet the same.
        self._choices: dict[_Place, _Choice] = {}
        self._drawn: dict[tuple[tuple[float, ...], tuple[int, ...]], Architecture] = {}

    def sample(self, rng: np.random.Generator) -> Architecture | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""
        if not self._first.total:
            return None
        *chances, last = rng.random(len(self._graph.steps) + 2).tolist()
        path, choice = [], self._first
        for chance in chances:
            found = choice.at(chance)
            path.append(choice.genes[found])
            following = choice.following[found]
            if following is None:
                following = choice.following[found] = self._choice(choice.places[found])
            choice = following
        genes = (tuple(path), choice.genes[choice.at(last)])
        architecture = self._drawn.get(genes)
        if architecture is None:
            architecture = self._drawn[genes] = Architecture(*genes)
        return architecture

    def _choice(self, place: _Place) -> _Choice:
        """What may follow there: strides of the next block, or after the last one utilisations."""
        choice = self._choices.get(place)
        if choice is None:
            ended = place[1] > len(self._graph.steps)
            choice = self._readable(place) if ended else self._after(place)
            self._choices[place] = choice
        return choice

    def _after(self, place: _Place) -> _Choice:
        """The strides of the next block, by the weight of all their completions."""
        root, block, state, k = place
        weights, layer = self._weights.strides[block], self._tables[root].layers[block]
        return _Choice(
            (
                stride,
                (root, block + 1, after, k + units),
                weights[stride] * layer[after].at(k + units),
            )
            for stride, (after, units) in self._graph.steps[block - 1][state].items()
        )

    def _readable(self, place: _Place) -> _Choice:
        """The utilisations that end a path inside the window."""
        root, _, state, k = place
        reading = self._graph.utilisations[visited_of(state)]
        first, end = reading.between(*self._tables[root].left(state, k))
        return _Choice(
            (v, place, self._weights.of_utilisation(v)) for v in reading.vectors[first:end]
        )


class _Choice:
    """A gene's values, by their weights.

    Attributes:
        genes: the values that can be drawn.
        places: where each of them leads.
        following: the choice there, as soon as it has been needed.
        total: sum of the weights.
    """

    __slots__ = ("_bounds", "following", "genes", "places", "total")

    def __init__(self, weighed: Iterable[tuple[Any, _Place, float]]) -> None:
        kept = [item for item in weighed if item[2] > 0]
        self.genes = [gene for gene, _, _ in kept]
        self.places = [place for _, place, _ in kept]
        self.following: list[_Choice | None] = [None] * len(kept)
        self._bounds = list(accumulate(weight for _, _, weight in kept))
        self.total = self._bounds[-1] if kept else 0.0

    def at(self, chance: float) -> int:
        """The position at a share of the total, in [0, 1)."""
        found = bisect_right(self._bounds, chance * self.total)
        return found if found < len(self.genes) else found - 1  # rounding
