"""Lists as feasible sets: costs that are no sum, chosen architectures, and refusals."""

from __future__ import annotations

import pickle
from math import prod

import numpy as np
import pytest

from msnas_optuna.spaces.base import EmptyWindowError, InvalidArchitectureError
from msnas_optuna.spaces.enumeration import Enumeration


class Product:
    """Block numbers multiplied: no sum over genes."""

    def total(self, genes):
        return prod(genes)

    def text(self, amount):
        return f"{amount} units"


def test_a_cost_that_is_no_sum_limits_the_list(allocations):
    feasible = Enumeration(allocations(16), Product(), window=(100, 150))
    expected = [g for g in Enumeration(allocations(16)) if 100 <= prod(g) <= 150]
    assert [*feasible] == expected
    assert 1 < len(expected) < 153
    assert feasible.distribution().count() == len(expected)
    outside = next(g for g in Enumeration(allocations(16)) if prod(g) > 150)
    assert feasible.violation(outside) == (
        f"{prod(outside)} units lie outside the window 100 units to 150 units"
    )
    best = feasible.best([{c: float(c) for c in choices} for choices in allocations(16).choices])
    assert best in expected


def test_a_chosen_list_holds_nothing_else(allocations):
    space = allocations(16)
    chosen = [(3, 4, 6, 3), (1, 3, 5, 7), (2, 2, 6, 6)]
    feasible = Enumeration(space, architectures=chosen)
    assert [feasible.at(i) for i in range(feasible.count())] == chosen
    assert feasible.violation((1, 1, 5, 9)) == "it is none of the 3 listed architectures"
    assert feasible.violation((1, 1, 1, 1)) == space.violation((1, 1, 1, 1))
    rng = np.random.default_rng(0)
    assert {feasible.sample(rng) for _ in range(50)} == set(chosen)
    assert {feasible.complete(rng, [None, None, 6, None]) for _ in range(50)} == {
        (3, 4, 6, 3),
        (2, 2, 6, 6),
    }
    copy = pickle.loads(pickle.dumps(feasible))
    assert [*copy] == chosen
    assert copy.violation((1, 1, 5, 9)) is not None


def test_lists_that_no_study_can_use_are_refused(allocations):
    space, allocation = allocations(16), (3, 4, 6, 3)
    with pytest.raises(InvalidArchitectureError, match=r"architectures\[1\]: 17 blocks, must be"):
        Enumeration(space, architectures=[allocation, (3, 4, 6, 4)])
    with pytest.raises(InvalidArchitectureError, match="listed twice"):
        Enumeration(space, architectures=[allocation, allocation])
    with pytest.raises(EmptyWindowError, match="give at least one"):
        Enumeration(space, architectures=[])
    with pytest.raises(EmptyWindowError, match=r"they cost 216 units to 216 units, the nearest"):
        Enumeration(space, Product(), window=(None, 5), architectures=[allocation])
