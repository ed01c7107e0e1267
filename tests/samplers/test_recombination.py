"""Recombination against the chances of all feasible architectures of a small space."""

from __future__ import annotations

import pickle
from collections import Counter
from math import prod

import numpy as np
import pytest
from scipy.stats import chisquare

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers.recombination import Recombination, gene_weights
from msnas_optuna.spaces.lattice import Lattice

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
ALL = [LATTICE.at(i) for i in range(LATTICE.count())]
PARENTS = ALL[::40]


def genes(architecture: Architecture) -> tuple[float, ...]:
    return (*architecture.strides, *architecture.feature_strides)


@pytest.mark.parametrize("reset", [0.0, 0.05, 0.5, 1.0])
def test_children_have_the_chances_of_independent_genes_given_the_budget(reset: float) -> None:
    rng, recombine = np.random.default_rng(0), Recombination(reset)
    n = 4000
    drawn = Counter(recombine.pool(PARENTS, LATTICE).child(rng) for _ in range(n))
    chance = np.array([_chance(a, reset) for a in ALL])
    expected = n * chance / chance.sum()
    counts = np.array([drawn[a] for a in ALL])
    assert counts.sum() == n  # every child is feasible
    likely = expected > 5
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum())
    used = wanted > 0
    assert not observed[~used].any()
    assert chisquare(observed[used], wanted[used]).pvalue > 1e-4


def _chance(architecture: Architecture, reset: float) -> float:
    columns = zip(*map(genes, PARENTS), strict=True)
    choices = [3] * 7 + [5] * 5
    return prod(
        reset / k + (1 - reset) * column.count(gene) / len(column)
        for gene, column, k in zip(genes(architecture), columns, choices, strict=True)
    )


def test_one_parent_without_resets_is_its_own_only_child() -> None:
    recombine, rng = Recombination(0), np.random.default_rng(0)
    assert recombine.pool(ALL[:1], LATTICE).child(rng) == ALL[0]


def test_nothing_is_drawn_where_the_parents_genes_fit_no_budget() -> None:
    outside = Architecture((1, 1, 1, 1, 1, 1, 2), (4, 4, 4, 4, 8))
    recombine, rng = Recombination(0), np.random.default_rng(0)
    assert recombine.pool([outside], LATTICE).child(rng) is None


def test_other_parents_and_other_windows_are_noticed() -> None:
    recombine, rng = Recombination(0), np.random.default_rng(0)
    wide = Lattice(SPACE, COST, window=(int(0.9 * TARGET), int(1.1 * TARGET)))
    assert recombine.pool(ALL[:1], LATTICE).child(rng) == ALL[0]
    assert recombine.pool(ALL[1:2], LATTICE).child(rng) == ALL[1]
    drawn = {recombine.pool(PARENTS, wide).child(rng) for _ in range(200)}
    assert any(LATTICE.violation(a) for a in drawn if a)
    assert not any(wide.violation(a) for a in drawn if a)


def test_it_can_be_sent_to_another_process() -> None:
    recombine = Recombination(0.1)
    recombine.pool(PARENTS, LATTICE).child(np.random.default_rng(0))
    twin = pickle.loads(pickle.dumps(recombine))
    first, second = (
        [r.pool(PARENTS, LATTICE).child(np.random.default_rng(1)) for _ in range(3)]
        for r in (recombine, twin)
    )
    assert first == second


def test_weights_are_shares_of_the_parents_mixed_with_equal_chances() -> None:
    a, b = ALL[0], ALL[-1]
    pool = gene_weights(SPACE, [a, b, b], reset=0.3)
    assert len(pool) == 12
    for weights in pool:
        assert sum(weights.values()) == pytest.approx(1)
    for weights, x, y in zip(pool[:7], a.strides, b.strides, strict=True):
        share = weights[y] - 0.1
        assert share == pytest.approx(0.7 if x == y else 0.7 * 2 / 3)


def test_contributors_explain_every_inherited_gene_with_few_parents() -> None:
    rng, recombine = np.random.default_rng(0), Recombination(0.1)
    for _ in range(200):
        child = recombine.pool(PARENTS, LATTICE).child(rng)
        assert child is not None
        chosen = recombine.pool(PARENTS, LATTICE).contributors(child)
        inherited = {i for p in PARENTS for i in _shared(child, p)}
        assert {i for c in chosen for i in _shared(child, PARENTS[c])} == inherited
        assert len(set(chosen)) == len(chosen) <= 12
    assert recombine.pool(PARENTS, LATTICE).contributors(PARENTS[3]) == [3]


def _shared(a: Architecture, b: Architecture) -> set[int]:
    return {i for i, (x, y) in enumerate(zip(genes(a), genes(b), strict=True)) if x == y}


def test_a_small_weight_is_not_lost_behind_a_large_one_outside_the_window() -> None:
    rng = np.random.default_rng(0)
    for only in PARENTS:
        exact = Lattice(SPACE, COST, window=(COST.total(only), COST.total(only)))
        encoder = [{s: float(s == stride) for s in (0.5, 1, 2)} for stride in only.strides]
        heads = [dict.fromkeys((4, 8, 16, 32, 64), 1.0) for _ in range(5)]
        for weights, stride in zip(heads, only.feature_strides, strict=True):
            weights[stride] = 1e-9
        drawn = exact.weighted([*encoder, *heads]).sample(rng)
        assert drawn is not None
        assert drawn.strides == only.strides
        assert exact.violation(drawn) is None
