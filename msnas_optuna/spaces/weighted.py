"""Draws of feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables weigh all that may follow, so that no draw is in vain.
"""

from __future__ import annotations

from typing import Any, Generic

import numpy as np

from msnas_optuna.spaces.base import A, Genes, GeneValues, Space
from msnas_optuna.spaces.semirings import Counting, Semiring
from msnas_optuna.spaces.tables import Tables, sweep
from msnas_optuna.spaces.trellis import Graph
from msnas_optuna.spaces.window import WeightedChoice

_Place = tuple[Tables, int, int, int]  # where a path is: tables, genes of the chain, state, k


class _Choice(WeightedChoice[Genes]):
    """Genes that may come next, where each of them leads, and the choice there once needed."""

    __slots__ = ("following", "places")

    def __init__(self) -> None:
        super().__init__()
        self.places: list[_Place] = []
        self.following: list[_Choice | None] = []

    def lead(self, genes: Genes, weight: float, place: _Place) -> None:
        """One more possibility, unless its weight is 0."""
        if weight > 0:
            self.add(genes, weight)
            self.places.append(place)
            self.following.append(None)


class WeightedDraw(Generic[A]):
    """The feasible architectures, each with the product of the weights, 0 to 1, of its genes.

    Weights are floating-point numbers: what is 1e-300 times as likely as what the largest weights
    would give may be lost. Where all weights of a gene are 0 or 1, paths are counted exactly.
    """

    def __init__(
        self, space: Space[A], graph: Graph, *, window: tuple[int, int], weights: GeneValues
    ) -> None:
        self._space = space
        graph = graph.valued(weights, Semiring())
        uniform = all(weight in (0, 1) for own in weights for weight in own.values())
        semiring = Counting(graph.trellis.n_paths) if uniform else Semiring()
        self._n_choices = len(graph.chain) + 2
        self._first = _Choice()
        for beginning, tables, k, value in sweep(graph, window, semiring):
            place = (tables, 0, beginning.state, k)
            self._first.lead(beginning.genes, beginning.value * value, place)
        # What a draw has met is kept: most draws of a converged population meet the same.
        self._choices: dict[_Place, _Choice] = {}
        self._drawn: dict[Genes, A] = {}

    @property
    def total(self) -> float:
        """See `Draw.total`."""
        return self._first.total

    def sample(self, rng: np.random.Generator) -> A | None:
        """See `Draw.sample`."""
        if not self._first.total:
            return None
        genes: list[Any] = []
        choice = self._first
        *chances, last = rng.random(self._n_choices).tolist()
        for chance in chances:
            found = choice.at(chance)
            genes += choice.things[found]
            following = choice.following[found]
            if following is None:
                following = choice.following[found] = self._following(choice.places[found])
            choice = following
        key = (*genes, *choice.things[choice.at(last)])
        if key not in self._drawn:
            self._drawn[key] = self._space.architecture(key)
        return self._drawn[key]

    def _following(self, place: _Place) -> _Choice:
        """The next genes of the chain, or after the last one the endings."""
        if (known := self._choices.get(place)) is not None:
            return known
        choice = self._choices[place] = _Choice()
        tables, position, state, k = place
        if position < len(tables.exits):
            for gene, after, cost, value, offset, entries in tables.exits[position][state]:
                if 0 <= k - offset < len(entries):
                    weight = value * entries[k - offset]
                    choice.lead((gene,), weight, (tables, position + 1, after, k + cost))
        else:
            endings = tables.graph.endings[state]
            inside = slice(*tables.open_endings(state, k))
            values = endings.values[inside].tolist()
            for genes, weight in zip(endings.genes[inside], values, strict=True):
                choice.add(genes, weight)
        return choice
