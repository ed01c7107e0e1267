"""An automaton written out by position (a trellis), and its moves priced by an additive cost.

Symbols: L genes, k cost so far in units of the grid on which the costs of the chain lie. The
chain is what lies between the first and the last genes, which are listed outright.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from operator import index
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import AdditiveCost, Automaton, Genes, State
from msnas_optuna.spaces.semirings import Semiring

HUGE: Final = 2**61
"""Costs stay within -2^61..2^61, which leaves room for sums and differences in 64 bits."""

OfTransition = Callable[[int, State, Any, State], Any]
"""(position, state before, gene, state after) -> a number."""


@dataclass(frozen=True)
class Trellis:
    """The states that valid paths visit, numbered at each position, and the moves between them.

    Attributes:
        states: one layer for each position 0..L; only states from which a path can be accepted.
        moves: one layer for each gene: number of a state -> (gene, number of the state after it),
            in the order of the gene's choices.
        listed: how many first and last genes are listed outright.
    """

    states: tuple[tuple[State, ...], ...]
    moves: tuple[tuple[tuple[tuple[Any, int], ...], ...], ...]
    listed: tuple[int, int]

    @classmethod
    def of(cls, automaton: Automaton) -> Trellis:
        """Explores an automaton from its start.

        Raises:
            ValueError: it accepts no sequence of genes.
        """
        states: list[dict[State, int]] = [{automaton.start: 0}]
        moves: list[list[list[tuple[Any, int]]]] = []
        for position, choices in enumerate(automaton.choices):
            after: dict[State, int] = {}
            layer: list[list[tuple[Any, int]]] = []
            for state in states[-1]:
                layer.append([])
                for gene in choices:
                    reached = automaton.next(position, state, gene)
                    if reached is not None:
                        layer[-1].append((gene, after.setdefault(reached, len(after))))
            moves.append(layer)
            states.append(after)
        alive = {number for state, number in states[-1].items() if automaton.accepts(state)}
        kept = [_renumbered(states[-1], alive)]
        for position in range(len(moves) - 1, -1, -1):
            numbers = {old: new for new, old in enumerate(sorted(alive))}
            layer = [[(g, numbers[t]) for g, t in out if t in alive] for out in moves[position]]
            alive = {number for number, out in enumerate(layer) if out}
            moves[position] = [layer[number] for number in sorted(alive)]
            kept.append(_renumbered(states[position], alive))
        if not alive:
            raise ValueError("the automaton accepts no sequence of genes: the space is empty")
        first = min(automaton.listed[0], len(moves))
        listed = (first, min(automaton.listed[1], len(moves) - first))
        frozen = tuple(tuple(tuple(out) for out in layer) for layer in moves)
        return cls(tuple(kept[::-1]), frozen, listed)

    @property
    def chain(self) -> range:
        """The positions of the genes that are not listed outright."""
        return range(self.listed[0], len(self.moves) - self.listed[1])

    @cached_property
    def n_paths(self) -> int:
        """All valid paths, exactly."""
        counts = [1] * len(self.states[-1])
        for layer in reversed(self.moves):
            counts = [sum(counts[after] for _, after in out) for out in layer]
        return counts[0]

    @cached_property
    def beginnings(self) -> list[tuple[Genes, tuple[int, ...]]]:
        """All ways through the first listed genes, and the numbers of the states on the way."""
        found: list[tuple[Genes, tuple[int, ...]]] = [((), (0,))]
        for layer in self.moves[: self.chain.start]:
            found = [
                ((*genes, gene), (*visited, after))
                for genes, visited in found
                for gene, after in layer[visited[-1]]
            ]
        return found

    @cached_property
    def endings(self) -> list[list[Genes]]:
        """All ways through the last listed genes, for each state after the chain."""
        found: list[list[Genes]] = [[()] for _ in self.states[-1]]
        for layer in reversed(self.moves[self.chain.stop :]):
            found = [[(gene, *rest) for gene, t in out for rest in found[t]] for out in layer]
        return found

    def along_beginning(
        self, number: int, value: OfTransition, combine: Callable[[Any, Any], Any]
    ) -> Any:
        """The values of a beginning's transitions, combined; None without any."""
        total, (genes, visited) = None, self.beginnings[number]
        for position, gene in enumerate(genes):
            before = self.states[position][visited[position]]
            after = self.states[position + 1][visited[position + 1]]
            own = value(position, before, gene, after)
            total = own if total is None else combine(total, own)
        return total

    def along_endings(
        self, value: OfTransition, combine: np.ufunc, dtype: type
    ) -> list[NDArray[Any]]:
        """The values of the transitions of every ending, combined, in the order of `endings`."""
        one: NDArray[Any] = np.full(1, combine.identity, dtype)
        found = [one for _ in self.states[-1]]
        for position in range(len(self.moves) - 1, self.chain.stop - 1, -1):
            before, after = self.states[position], self.states[position + 1]
            found = [
                np.concatenate(
                    [combine(value(position, before[s], g, after[t]), found[t]) for g, t in out]
                )
                for s, out in enumerate(self.moves[position])
            ]
        return found


def _renumbered(states: dict[State, int], alive: set[int]) -> tuple[State, ...]:
    return tuple(state for state, number in states.items() if number in alive)


class Move(NamedTuple):
    """A gene of the chain: the number of the state after it, its units, its weight or score."""

    gene: Any
    after: int
    cost: int
    value: float = 1


class Beginning(NamedTuple):
    """The first listed genes: the state after them, what they and every architecture cost."""

    genes: Genes
    state: int
    cost: int
    value: float = 1


class Endings(NamedTuple):
    """The last listed genes that may follow one state, cheapest first.

    Attributes:
        costs: ascending. shape (E,)
        genes: of each.
        order: the position of each in `Trellis.endings`. shape (E,)
        values: weight or score of each. shape (E,)
    """

    costs: NDArray[np.int64]
    genes: list[Genes]
    order: NDArray[np.int64]
    values: NDArray[np.float64]

    def between(self, low: int, high: int) -> tuple[int, int]:
        """The positions [first, end) of those that cost low..high."""
        first, end = self.costs.searchsorted((low, high + 1)).tolist()
        return first, end


@dataclass(frozen=True)
class Graph:
    """A trellis with the costs of its moves.

    A path costs its beginning + unit * (the units of its chain) + its ending.

    Attributes:
        trellis: what may follow what.
        unit: of the chain's costs, their greatest common divisor once each gene of the chain has
            been relieved of what its cheapest move costs.
        beginnings: in the order of the choices.
        chain: one layer for each gene of the chain: number of a state -> moves.
        endings: for each state after the chain.
    """

    trellis: Trellis
    unit: int
    beginnings: tuple[Beginning, ...]
    chain: tuple[tuple[tuple[Move, ...], ...], ...]
    endings: tuple[Endings, ...]

    @classmethod
    def of(cls, trellis: Trellis, cost: AdditiveCost[Any] | None) -> Graph:
        """Prices every move once; without a cost they are free.

        Raises:
            ValueError: a path may cost more than 2^61.
            TypeError: a cost is no whole number.
        """

        def step(position: int, before: State, gene: Any, after: State) -> int:
            paid = 0 if cost is None else index(cost.step(position, before, gene, after))
            _require_countable(paid)
            return paid

        base = 0 if cost is None else index(cost.base)
        largest = abs(base)
        priced, units = [], [0]
        for position in trellis.chain:
            before, after = trellis.states[position], trellis.states[position + 1]
            layer = [
                [(g, t, step(position, before[s], g, after[t])) for g, t in out]
                for s, out in enumerate(trellis.moves[position])
            ]
            paid = [c for out in layer for _, _, c in out]
            cheapest, largest = min(paid), largest + max(map(abs, paid))
            base += cheapest
            priced.append((cheapest, layer))
            units += [c - cheapest for c in paid]
        unit = gcd(*units) or 1
        chain = tuple(
            tuple(tuple(Move(g, t, (c - cheapest) // unit) for g, t, c in out) for out in layer)
            for cheapest, layer in priced
        )
        beginnings = tuple(
            Beginning(
                genes, visited[-1], base + (trellis.along_beginning(i, step, int.__add__) or 0)
            )
            for i, (genes, visited) in enumerate(trellis.beginnings)
        )
        endings = []
        ends = trellis.along_endings(step, np.add, np.int64)
        for costs, genes in zip(ends, trellis.endings, strict=True):
            order = costs.argsort(kind="stable")
            sorted_genes = [genes[i] for i in order.tolist()]
            endings.append(Endings(costs[order], sorted_genes, order, np.ones(len(order))))
        largest += max(abs(b.cost - base) for b in beginnings)
        _require_countable(largest + max(int(abs(e.costs).max()) for e in endings))
        return cls(trellis, unit, beginnings, chain, tuple(endings))

    def valued(self, value: OfTransition, semiring: Semiring) -> Graph:
        """The same paths with a weight or score for each gene; those of no value are left out."""
        times, zero, states = semiring.times, semiring.zero, self.trellis.states
        beginnings = []
        for i, beginning in enumerate(self.beginnings):
            own = self.trellis.along_beginning(i, value, times)
            own = times.identity if own is None else own
            if own != zero:
                beginnings.append(beginning._replace(value=float(own)))
        chain = []
        for position, layer in zip(self.trellis.chain, self.chain, strict=True):
            before, after = states[position], states[position + 1]
            valued = [
                [m._replace(value=value(position, before[s], m.gene, after[m.after])) for m in out]
                for s, out in enumerate(layer)
            ]
            chain.append(tuple(tuple(m for m in out if m.value != zero) for out in valued))
        endings = []
        found = self.trellis.along_endings(value, times, np.float64)
        for ending, values in zip(self.endings, found, strict=True):
            values = values[ending.order]
            kept = (values != zero).nonzero()[0]
            genes = [ending.genes[i] for i in kept.tolist()]
            endings.append(Endings(ending.costs[kept], genes, ending.order[kept], values[kept]))
        return replace(
            self, beginnings=tuple(beginnings), chain=tuple(chain), endings=tuple(endings)
        )


def _require_countable(cost: int) -> None:
    if abs(cost) > HUGE:
        raise ValueError(
            f"costs must stay within 2^61 to be counted exactly, a path may cost {cost}; measure "
            "them in a larger unit"
        )
