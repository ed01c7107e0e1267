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


def joins(child: Architecture, a: Architecture, b: Architecture) -> bool:
    """Whether the encoder of the child follows a, then b, with the joint at one resolution."""
    return any(
        child.strides == a.strides[:i] + b.strides[i:]
        and a.absolute_strides[i - 1] == b.absolute_strides[i - 1]
        for i in range(1, 7)
    )


def redrawn_window(a: Architecture, child: Architecture) -> int:
    changed = [i for i in range(7) if a.strides[i] != child.strides[i]]
    return changed[-1] - changed[0] + 1 if changed else 0


def test_the_set_is_the_one_that_brute_force_finds() -> None:
    assert len(set(ALL)) == 297
    assert all(LATTICE.violation(a) is None for a in ALL)


def test_crossover_encoder_joins_parents_and_finds_a_child_where_one_exists(
    rng: np.random.Generator,
) -> None:
    found = 0
    for a, b in PAIRS:
        children = {c for c in ALL if c.strides not in (a.strides, b.strides) and joins(c, a, b)}
        child = ops.crossover_encoder(a, b, feasible=LATTICE, rng=rng)
        assert (child in children) if children else (child is None)
        if keeping := {c for c in children if c.feature_strides in _utilisations(a, b)}:
            assert child in keeping
        found += child is not None
    assert found > 20


def _utilisations(*parents: Architecture) -> set[tuple[int, ...]]:
    return {p.feature_strides for p in parents}


@pytest.mark.parametrize("window", [1, 2, 3, 4, 50])
def test_mutate_encoder_changes_one_window_and_finds_a_child_where_one_exists(
    window: int, rng: np.random.Generator
) -> None:
    found = 0
    for a in ALL:
        children = {c for c in ALL if 0 < redrawn_window(a, c) <= window}
        child = ops.mutate_encoder(a, window=window, feasible=LATTICE, rng=rng)
        assert (child in children) if children else (child is None)
        if keeping := {c for c in children if c.feature_strides == a.feature_strides}:
            assert child in keeping
        found += child is not None
    assert found > 0


def test_crossover_feature_strides_keeps_the_encoder_and_mixes_the_utilisations(
    rng: np.random.Generator,
) -> None:
    found = 0
    for a, b in PAIRS:
        s, t = a.feature_strides, b.feature_strides
        mixed = {x[:g] + y[g:] for x, y in ((s, t), (t, s)) for g in range(5)}
        children = {c for c in ALL if c.strides == a.strides and c.feature_strides in mixed} - {
            a,
            b,
        }
        child = ops.crossover_feature_strides(a, b, feasible=LATTICE, rng=rng)
        assert (child in children) if children else (child is None)
        found += child is not None
    assert found > 5


def test_mutate_feature_strides_reaches_every_other_utilisation_of_the_encoder(
    rng: np.random.Generator,
) -> None:
    for a in ALL[::10]:
        others = {c for c in ALL if c.strides == a.strides} - {a}
        drawn = {ops.mutate_feature_strides(a, feasible=LATTICE, rng=rng) for _ in range(200)}
        assert drawn == (others or {None})


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
        return [ops.mutate_encoder(a, window=3, feasible=LATTICE, rng=rng) for a in ALL[:30]] + [
            ops.crossover_encoder(a, b, feasible=LATTICE, rng=rng) for a, b in PAIRS[:30]
        ]

    assert children(1) == children(1) != children(2)
