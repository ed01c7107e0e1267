"""The operators against a brute-force list of all 297 feasible architectures of a small space."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers import operators as ops
from msnas_optuna.spaces.lattice import Lattice

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
ALL = [LATTICE.at(i) for i in range(LATTICE.count())]
PAIRS = list(zip(ALL, ALL[1:] + ALL[:1], strict=True)) + list(zip(ALL, ALL[::-1], strict=True))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_set_is_the_one_that_brute_force_finds() -> None:
    assert len(set(ALL)) == 297
    assert all(LATTICE.violation(a) is None for a in ALL)


REJECTING = {
    "crossover_encoder": lambda a, b, **k: ops.rejecting_crossover_encoder(a, b, **k),
    "mutate_encoder": lambda a, b, **k: ops.rejecting_mutate_encoder(a, probability=0.3, **k),
    "crossover_feature_strides": lambda a, b, **k: ops.rejecting_crossover_feature_strides(
        a, b, **k
    ),
    "mutate_feature_strides": lambda a, b, **k: ops.rejecting_mutate_feature_strides(
        a, probability=0.3, **k
    ),
}


@pytest.mark.parametrize("name", REJECTING)
def test_rejecting_operators_return_feasible_children_or_none(
    name: str, rng: np.random.Generator
) -> None:
    feasible, found, rejected = set(ALL), 0, 0
    for (a, b), _ in product(PAIRS, range(4)):
        child = REJECTING[name](a, b, feasible=LATTICE, rng=rng)
        rejected += child is None
        if child is not None:
            found += 1
            assert child in feasible - ({a, b} if "crossover" in name else {a})
            if "feature_strides" in name:
                assert child.strides == a.strides
            else:
                assert child.feature_strides == a.feature_strides
    assert found > 0
    assert rejected > 0


def test_equal_random_numbers_give_equal_children() -> None:
    def children(seed: int) -> list[Architecture | None]:
        rng = np.random.default_rng(seed)
        return [
            vary(a, b, feasible=LATTICE, rng=rng) for a, b in PAIRS for vary in REJECTING.values()
        ]

    assert children(1) == children(1) != children(2)
