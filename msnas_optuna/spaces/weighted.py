"""Draws of feasible architectures in which some genes are likelier than others.

Genes are drawn independently of each other by their weights, given that the architecture is valid
and inside the window. The tables weigh everything that may follow, so that a draw needs no second
attempt.

Symbols: k cost so far in units, see `Graph`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Generic

import numpy as np

from msnas_optuna.spaces.base import A, Genes, InvalidArchitectureError, Space
from msnas_optuna.spaces.semirings import Counting, Semiring
from msnas_optuna.spaces.tables import Tables, sweep
from msnas_optuna.spaces.trellis import Graph

GeneValues = Sequence[Mapping[Any, float]]
"""One mapping for each gene, from each of its choices to a weight or a score."""


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


def require_values(values: GeneValues, space: Space[Any], *, least: float = -inf) -> None:
    """Sees to it that each choice of each gene has a finite value.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
        ValueError: a gene has other choices, or a value is not finite or less than `least`.
    """
    require_genes(values, space)
    for own, (name, distribution) in zip(values, space.distributions.items(), strict=True):
        in_range = all(least <= value < inf and value > -inf for value in own.values())
        if set(own) != set(distribution.choices) or not in_range:
            limit = "" if least == -inf else f" of at least {least:g}"
            raise ValueError(
                f"each of {list(distribution.choices)} of {name} must have a finite value{limit}, "
                f"got {dict(own)}"
            )


def scaled(weights: GeneValues, space: Space[Any]) -> list[dict[Any, float]]:
    """The same chances with 1 as the largest weight of each gene: products stay in range.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
        ValueError: a gene has other choices than the space, or a weight is out of range.
    """
    require_values(weights, space, least=0)
    largest = [max(own.values()) or 1.0 for own in weights]
    return [
        {choice: weight / most for choice, weight in own.items()}
        for own, most in zip(weights, largest, strict=True)
    ]


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
    would give may be lost. Where all weights of a gene are 0 or equal, paths are counted exactly.

    Args:
        space: whose architectures they are.
        graph: what may follow what.
        window: smallest and largest cost, both inside.
        weights: of every gene.

    Raises:
        InvalidArchitectureError: the number of genes is wrong.
        ValueError: a gene has other choices than the space, or a weight is out of range.
    """

    def __init__(
        self, space: Space[A], graph: Graph, *, window: tuple[int, int], weights: GeneValues
    ) -> None:
        self._space, known = space, scaled(weights, space)
        graph = graph.valued(lambda i, _, gene, __: known[i][gene], Semiring())
        uniform = all(weight in (0, 1) for own in known for weight in own.values())
        semiring = Counting.up_to(graph.trellis.n_paths) if uniform else Semiring()
        self._n_choices = len(graph.chain) + 2
        self._first = _Choice()
        for beginning, tables, k, value in sweep(graph, window, semiring):
            place = (tables, 0, beginning.state, k)
            self._first.add(beginning.genes, beginning.value * value, place)
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
        *chances, last = rng.random(self._n_choices).tolist()
        for chance in chances:
            found = choice.at(chance)
            genes += choice.genes[found]
            following = choice.following[found]
            if following is None:
                following = choice.following[found] = self._choice(choice.places[found])
            choice = following
        key = (*genes, *choice.genes[choice.at(last)])
        architecture = self._drawn.get(key)
        if architecture is None:
            architecture = self._drawn[key] = self._space.architecture(key)
        return architecture

    def _choice(self, place: _Place) -> _Choice:
        """What may follow there: the next gene of the chain, or after the last one an ending."""
        choice = self._choices.get(place)
        if choice is not None:
            return choice
        choice = self._choices[place] = _Choice()
        tables, position, state, k = place
        if position < len(tables.exits):
            for gene, after, cost, value, offset, entries in tables.exits[position][state]:
                if 0 <= k - offset < len(entries):
                    weight = value * entries[k - offset]
                    choice.add((gene,), weight, (tables, position + 1, after, k + cost))
        else:
            endings = tables.graph.endings[state]
            inside = slice(*tables.open_endings(state, k))
            for genes, weight in zip(
                endings.genes[inside], endings.values[inside].tolist(), strict=True
            ):
                choice.add(genes, weight, place)
        return choice


_Place = tuple[Tables, int, int, int]
"""Where a path has come to: its tables, genes of the chain so far, state, k."""


class _Choice:
    """Genes that may come next, by their weights and those of all that may follow.

    Attributes:
        genes: what can be drawn.
        places: where each of them leads.
        following: the choice there, as soon as it has been needed.
        total: sum of the weights.
    """

    __slots__ = ("_bounds", "following", "genes", "places", "total")

    def __init__(self) -> None:
        self.genes: list[Genes] = []
        self.places: list[_Place] = []
        self.following: list[_Choice | None] = []
        self._bounds: list[float] = []
        self.total = 0.0

    def add(self, genes: Genes, weight: float, place: _Place) -> None:
        """One more possibility, unless its weight is 0."""
        if weight > 0:
            self.total += weight
            self._bounds.append(self.total)
            self.genes.append(genes)
            self.places.append(place)
            self.following.append(None)

    def at(self, chance: float) -> int:
        """The position at a share of the total, in [0, 1)."""
        found = bisect_right(self._bounds, chance * self.total)
        return found if found < len(self.genes) else found - 1  # rounding
