"""An automaton written out by position (a trellis), and its moves priced by an additive cost.

Symbols: L genes, k cost so far in units of the grid on which the costs of the chain lie. The
chain is what lies between the first and the last genes, which are listed outright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from operator import index
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import AdditiveCost, Automaton, Genes, GeneValues, State
from msnas_optuna.spaces.semirings import Semiring

HUGE: Final = 2**61  # bound of all costs; leaves room for sums and differences in 64 bits


@dataclass(frozen=True)
class Trellis:
    """The states that valid paths visit, numbered at each position, and the moves between them."""

    states: list[list[State]]  # a layer for each position 0..L; only what may be accepted
    moves: list[list[list[tuple[Any, int]]]]  # for each gene: state -> (gene, state after it)
    listed: tuple[int, int]  # how many first and last genes are listed outright

    @classmethod
    def of(cls, automaton: Automaton) -> Trellis:
        """Explores an automaton from its start; ValueError if it accepts no sequence of genes."""
        states, moves = [[automaton.start]], []
        for position, choices in enumerate(automaton.choices):
            numbers: dict[State, int] = {}
            layer: list[list[tuple[Any, int]]] = []
            for state in states[-1]:
                reached = ((gene, automaton.next(position, state, gene)) for gene in choices)
                kept = [(gene, after) for gene, after in reached if after is not None]
                layer.append([(g, numbers.setdefault(t, len(numbers))) for g, t in kept])
            moves.append(layer)
            states.append([*numbers])
        alive = [number for number, state in enumerate(states[-1]) if automaton.accepts(state)]
        states[-1] = [states[-1][number] for number in alive]
        for position in reversed(range(len(moves))):
            new = {number: i for i, number in enumerate(alive)}
            layer = [[(g, new[t]) for g, t in out if t in new] for out in moves[position]]
            alive = [number for number, out in enumerate(layer) if out]
            moves[position] = [layer[number] for number in alive]
            states[position] = [states[position][number] for number in alive]
        if not alive:
            raise ValueError("the automaton accepts no sequence of genes: the space is empty")
        first = min(automaton.listed[0], len(moves))
        return cls(states, moves, (first, min(automaton.listed[1], len(moves) - first)))

    @cached_property
    def n_paths(self) -> int:
        """All valid paths, exactly."""
        counts = [1] * len(self.states[-1])
        for layer in reversed(self.moves):
            counts = [sum(counts[after] for _, after in out) for out in layer]
        return counts[0]


class Move(NamedTuple):
    """A gene: the number of the state after it, its cost (in units in the chain), its value."""

    gene: Any
    after: int
    cost: int
    value: float = 1


class Beginning(NamedTuple):
    """The first listed genes: the state after them, what they and every architecture cost."""

    genes: Genes
    state: int
    cost: int
    value: float


class Endings(NamedTuple):
    """The last listed genes that may follow one state, cheapest first."""

    costs: NDArray[np.int64]  # [E], ascending
    genes: list[Genes]
    values: NDArray[np.float64]  # [E], weights or scores

    def between(self, low: int, high: int) -> tuple[int, int]:
        """The positions [first, end) of those that cost low..high."""
        first, end = self.costs.searchsorted((low, high + 1)).tolist()
        return first, end


Layer = list[list[Move]]  # number of a state -> moves


class Graph:
    """A trellis with the costs of its moves, one layer for each gene.

    A path costs its beginning + unit * (the units of its chain) + its ending.

    Attributes:
        unit: of the chain's costs, their greatest common divisor once each gene of the chain has
            been relieved of what its cheapest move costs.
        beginnings: in the order of the choices.
        chain: one layer for each gene of the chain, with costs in units.
        endings: for each state after the chain.
    """

    def __init__(
        self, trellis: Trellis, base: int, *, moves: list[Layer], semiring: Semiring
    ) -> None:
        self.trellis, self.base, self.moves = trellis, base, moves
        first, end = trellis.listed[0], len(moves) - trellis.listed[1]
        least = [min((m.cost for out in layer for m in out), default=0) for layer in moves]
        above = (
            m.cost - cheapest
            for layer, cheapest in zip(moves[first:end], least[first:end], strict=True)
            for out in layer
            for m in out
        )
        self.unit = gcd(*above) or 1
        self.chain = [
            [[Move(g, t, (c - cheapest) // self.unit, v) for g, t, c, v in out] for out in layer]
            for layer, cheapest in zip(moves[first:end], least[first:end], strict=True)
        ]
        base += sum(least[first:end])
        (begun, *_) = _listed(moves[:first], len(trellis.states[first]), semiring)
        self.beginnings = [Beginning(genes, s, base + c, v) for genes, s, c, v in begun]
        self.endings = []
        for ways in _listed(moves[end:], len(trellis.states[-1]), semiring):
            ways.sort(key=lambda way: way.cost)
            costs = np.array([way.cost for way in ways], np.int64)
            values = np.array([way.value for way in ways], np.float64)
            self.endings.append(Endings(costs, [way.genes for way in ways], values))

    @classmethod
    def of(cls, trellis: Trellis, cost: AdditiveCost[Any] | None) -> Graph:
        """Prices every move once; without a cost they are free.

        Raises:
            ValueError: a path may cost more than 2^61.
            TypeError: a cost is no whole number.
        """
        if cost is None:
            free = [[[Move(g, t, 0) for g, t in out] for out in layer] for layer in trellis.moves]
            return cls(trellis, 0, moves=free, semiring=Semiring())
        base, moves = index(cost.base), []
        largest = abs(base)
        for position, layer in enumerate(trellis.moves):
            before, after = trellis.states[position : position + 2]
            moves.append(
                [
                    [Move(g, t, index(cost.step(position, state, g, after[t]))) for g, t in out]
                    for state, out in zip(before, layer, strict=True)
                ]
            )
            largest += max(abs(m.cost) for out in moves[-1] for m in out)
        if largest > HUGE:
            raise ValueError(
                f"costs must stay within 2^61 to be counted exactly, a path may cost {largest}; "
                "measure them in a larger unit"
            )
        return cls(trellis, base, moves=moves, semiring=Semiring())

    def valued(self, values: GeneValues, semiring: Semiring) -> Graph:
        """The same paths with a weight or score for each gene; those of no value are left out."""
        moves = [
            [
                [m._replace(value=own[m.gene]) for m in out if own[m.gene] != semiring.zero]
                for out in layer
            ]
            for layer, own in zip(self.moves, values, strict=True)
        ]
        return Graph(self.trellis, self.base, moves=moves, semiring=semiring)


def _listed(layers: Sequence[Layer], n_after: int, semiring: Semiring) -> list[list[Beginning]]:
    """All ways through some layers, from each state before them, and the state after them."""
    found = [[Beginning((), state, 0, semiring.one)] for state in range(n_after)]
    for layer in reversed(layers):
        found = [
            [
                Beginning((g, *genes), s, c + cost, semiring.times(v, value))
                for g, t, c, v in out
                for genes, s, cost, value in found[t]
            ]
            for out in layer
        ]
    return found
