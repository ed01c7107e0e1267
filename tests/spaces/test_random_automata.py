"""Automata made at random, against brute force, in narrow and in wide numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from optuna.distributions import CategoricalDistribution

from msnas_optuna.spaces.base import EmptyWindowError, Space
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.trellis import Trellis


@dataclass(frozen=True)
class Table(Space):
    """A space and its cost, looked up in a table: (position, state, gene) -> state, cost."""

    shape: tuple[int, ...]  # choices of each gene
    moves: dict
    accepted: frozenset
    listed: tuple[int, int]
    base: int
    start: int = 0

    @property
    def choices(self):
        return [tuple(range(n)) for n in self.shape]

    def next(self, position, state, gene):
        return self.moves[position, state, gene][0]

    def accepts(self, state):
        return state in self.accepted

    def automaton(self):
        return self

    def step(self, position, before, gene, after):
        assert self.moves[position, before, gene][0] == after
        return self.moves[position, before, gene][1]

    def walked(self, genes):
        """The state before each gene and after the last, and the cost; None if not allowed."""
        states, total = [0], self.base
        for position, gene in enumerate(genes):
            after, cost = self.moves[position, states[-1], gene]
            if after is None:
                return None
            states.append(after)
            total += cost
        return (states, total) if states[-1] in self.accepted else None

    def total(self, genes):
        return self.walked(genes)[1]

    def text(self, amount):
        return f"{amount} units"

    @cached_property
    def distributions(self):
        return {f"g{i}": CategoricalDistribution(c) for i, c in enumerate(self.choices)}

    def genes(self, architecture):
        return architecture

    def architecture(self, genes):
        return tuple(genes)

    def violation(self, architecture):
        return None if self.walked(architecture) else "not allowed"


@st.composite
def tables(draw):
    n = draw(st.integers(1, 5))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)))
    grain = draw(st.sampled_from([1, 3, 64]))
    costs = st.integers(-4, 12).map(lambda c: c * grain)
    states = st.sampled_from([0, 1, 2, 2, 3, None])
    moves = {
        (position, state, gene): (draw(states), draw(costs))
        for position, n_choices in enumerate(shape)
        for state in range(4)
        for gene in range(n_choices)
    }
    for key in list(moves):  # the ends of the chain have a finer grain
        if key[0] in (0, n - 1):
            moves[key] = (moves[key][0], moves[key][1] + draw(st.integers(0, 5)))
    accepted = draw(st.frozensets(st.integers(0, 3), min_size=1))
    listed = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    return Table(shape, moves, accepted, listed, draw(st.integers(-100, 100)))


ends = st.none() | st.integers(-150, 400)


@pytest.mark.parametrize("n_paths", [None, 2**80])
@settings(max_examples=150, deadline=None)
@given(table=tables(), low=ends, high=ends, seed=st.integers(0, 99))
def test_everything_equals_brute_force(n_paths, table, low, high, seed):
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    walks = {g: table.walked(g) for g in product(*table.choices)}
    walks = {g: walk for g, walk in walks.items() if walk}
    inside = {
        genes: states
        for genes, (states, total) in walks.items()
        if (low is None or low <= total) and (high is None or total <= high)
    }
    with pytest.MonkeyPatch.context() as patch:
        if n_paths is not None:
            patch.setattr(Trellis, "n_paths", n_paths)
        if not inside:
            match = "they cost" if walks else "accepts no sequence"
            with pytest.raises(EmptyWindowError if walks else ValueError, match=match):
                Lattice(table, table, window=(low, high))
            return
        lattice = Lattice(table, table, window=(low, high))
        assert lattice.count() == len(inside)
        assert {lattice.at(i) for i in range(len(inside))} == set(inside)
        totals = Counter(walks[genes][1] for genes in inside)
        distribution = lattice.distribution()
        pairs = zip(distribution.totals.tolist(), distribution.counts.tolist(), strict=True)
        assert dict(pairs) == totals
    rng = np.random.default_rng(seed)
    weights = [{g: float(rng.integers(3)) for g in choices} for choices in table.choices]
    heavy = {
        genes: np.prod(
            [w[g] / (max(w.values()) or 1) for w, g in zip(weights, genes, strict=True)]
        )
        for genes in inside
    }
    draw = lattice.weighted(weights)
    assert draw.total == pytest.approx(sum(heavy.values()))
    drawn = draw.sample(rng)
    assert heavy[drawn] > 0 if sum(heavy.values()) else drawn is None
    scores = [{g: float(rng.normal()) for g in choices} for choices in table.choices]
    best = lattice.best(scores)

    def score(genes):
        return sum(s[g] for s, g in zip(scores, genes, strict=True))

    assert best in inside
    assert score(best) == pytest.approx(max(map(score, inside)))
