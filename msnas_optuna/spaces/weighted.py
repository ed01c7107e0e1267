"""Draws of feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables weigh everything that may follow, so that a draw needs no second
attempt.

Symbols: k cost so far in units, see `Graph`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any, Generic

import numpy as np

from msnas_optuna.spaces.base import A, Genes, InvalidArchitectureError, Space
from msnas_optuna.spaces.semirings import Weighing
from msnas_optuna.spaces.tables import Tables, sweep
from msnas_optuna.spaces.trellis import Graph

GeneWeights = Sequence[Mapping[Any, float]]
"""One mapping for each gene, from each of its choices to a weight of at least 0."""


def scaled(weights: GeneWeights, space: Space[Any]) -> list[dict[Any, float]]:
    """The same chances with 1 as the largest weight of each gene: products stay in range.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
        ValueError: a gene has other values than the space, or a weight is out of range.
    """
    require_genes(weights, space)
    found = []
    for own, (name, distribution) in zip(weights, space.distributions.items(), strict=True):
        choices = distribution.choices
        if set(own) != set(choices) or not all(0 <= w < inf for w in own.values()):
            raise ValueError(
                f"weights of {name} must give each of {list(choices)} a finite weight of at "
                f"least 0, got {dict(own)}"
            )
        largest = max(own.values()) or 1.0
        found.append({choice: weight / largest for choice, weight in own.items()})
    return found


def require_genes(given: Sequence[Any], space: Space[Any]) -> None:
    """Sees to it that there is one entry for each gene.

    Raises:
        InvalidArchitectureError: there are more or fewer.
    """
    if len(given) != len(space.distributions):
        raise InvalidArchitectureError(
            f"the space has {len(space.distributions)} genes, got {len(given)} entries; give one "
            "for each parameter, in their order"
        )


def fixing(genes: Sequence[Any], space: Space[Any]) -> list[dict[Any, float]]:
    """Weights of 1 and 0 that keep every gene that is not None.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
    """
    require_genes(genes, space)
    return [
        {choice: float(gene is None or choice == gene) for choice in distribution.choices}
        for gene, distribution in zip(genes, space.distributions.values(), strict=True)
    ]


class WeightedDraw(Generic[A]):
    """The feasible architectures, each with the product of the weights of its genes.

    Weights are floating-point numbers: what is 1e-300 times as likely as what the largest weights
    would give may be lost.

    Args:
        space: whose architectures they are.
        graph: what may follow what.
        window: smallest and largest cost, both inside.
        weights: of every gene.
    """

    def __init__(
        self, space: Space[A], graph: Graph, *, window: tuple[int, int], weights: GeneWeights
    ) -> None:
        self._space, known = space, scaled(weights, space)
        graph = graph.valued(lambda i, _, gene, __: known[i][gene], Weighing())
        self._n_choices = len(graph.chain) + 2
        self._first = _Choice(
            (e.beginning.genes, (e.tables, 0, e.beginning.state, e.k), e.beginning.value * e.value)
            for e in sweep(graph, window, Weighing())
        )
        # What a draw has met is kept: most draws of a converged population meet the same.
        self._choices: dict[_Place, _Choice] = {}
        self._drawn: dict[Genes, A] = {}

    @property
    def total(self) -> float:
        """The weight of all feasible architectures, where 1 is the largest weight of a gene."""
        return self._first.total

    def sample(self, rng: np.random.Generator) -> A | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""
        if not self._first.total:
            return None
        genes: list[Any] = []
        choice = self._first
        for chance in rng.random(self._n_choices).tolist():
            found = choice.at(chance)
            genes += choice.genes[found]
            following = choice.following[found]
            if following is None:
                place = choice.places[found]
                if place is None:
                    break
                following = choice.following[found] = self._choice(place)
            choice = following
        key = tuple(genes)
        architecture = self._drawn.get(key)
        if architecture is None:
            architecture = self._drawn[key] = self._space.architecture(key)
        return architecture

    def _choice(self, place: _Place) -> _Choice:
        """What may follow there: the next gene of the chain, or after the last one an ending."""
        choice = self._choices.get(place)
        if choice is None:
            tables, position, _, _ = place
            chain = position < len(tables.exits)
            choice = self._choices[place] = _Choice(_exits(place) if chain else _endings(place))
        return choice


_Place = tuple[Tables, int, int, int]
"""Where a path has come to: its tables, genes of the chain so far, state, k."""

_Weighed = tuple[Genes, _Place | None, float]
"""Genes, where they lead, their weight and that of all that may follow."""


def _exits(place: _Place) -> Iterable[_Weighed]:
    tables, position, state, k = place
    for gene, after, cost, value, offset, entries in tables.exits[position][state]:
        if 0 <= k - offset < len(entries):
            yield (gene,), (tables, position + 1, after, k + cost), value * entries[k - offset]


def _endings(place: _Place) -> Iterable[_Weighed]:
    tables, _, state, k = place
    first, end = tables.open_endings(state, k)
    endings = tables.graph.endings[state]
    for genes, weight in zip(endings.genes[first:end], endings.values[first:end], strict=True):
        yield genes, None, float(weight)


class _Choice:
    """Genes that may come next, by their weights.

    Attributes:
        genes: what can be drawn.
        places: where each of them leads.
        following: the choice there, as soon as it has been needed.
        total: sum of the weights.
    """

    __slots__ = ("_bounds", "following", "genes", "places", "total")

    def __init__(self, weighed: Iterable[_Weighed]) -> None:
        kept = [item for item in weighed if item[2] > 0]
        self.genes = [genes for genes, _, _ in kept]
        self.places = [place for _, place, _ in kept]
        self.following: list[_Choice | None] = [None] * len(kept)
        self._bounds = list(accumulate(weight for _, _, weight in kept))
        self.total = self._bounds[-1] if kept else 0.0

    def at(self, chance: float) -> int:
        """The position at a share of the total, in [0, 1)."""
        found = bisect_right(self._bounds, chance * self.total)
        return found if found < len(self.genes) else found - 1  # rounding
