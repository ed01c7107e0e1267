"""Gene pools: the chances of genes, and who has contributed them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna
import pytest

from msnas_optuna import Architecture, ArchitectureSampler, EncoderCost, Lattice, MSNASSpace
from msnas_optuna.samplers.recombination import contributors, gene_pool, gene_weights
from msnas_optuna.storage import ORIGIN

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
ALL = list(LATTICE)
PARENTS = tuple(ALL[::40])


def test_weights_are_shares_of_the_parents_mixed_with_equal_chances() -> None:
    a, b = ALL[0], ALL[-1]
    pool = gene_weights(SPACE, [a, b, b], reset=0.3)
    assert len(pool) == 12
    for weights, x, y in zip(pool, SPACE.genes(a), SPACE.genes(b), strict=True):
        assert sum(weights.values()) == pytest.approx(1)
        share = weights[y] - 0.3 / len(weights)
        assert share == pytest.approx(0.7 if x == y else 0.7 * 2 / 3)


def test_children_have_the_chances_of_independent_genes_given_the_budget() -> None:
    rng, weights = np.random.default_rng(0), gene_weights(SPACE, PARENTS, reset=0.2)
    pool = gene_pool(PARENTS, LATTICE, reset=0.2)
    drawn = Counter(pool.sample(rng) for _ in range(4000))
    chance = np.array(
        [np.prod([w[g] for w, g in zip(weights, SPACE.genes(a), strict=True)]) for a in ALL]
    )
    expected = 4000 * chance / chance.sum()
    counts = np.array([drawn[a] for a in ALL])
    assert counts.sum() == 4000  # every child is feasible
    assert abs(counts - expected).max() < 5 * np.sqrt(expected.max())
    assert np.corrcoef(counts, expected)[0, 1] > 0.98


def test_one_parent_without_resets_is_its_own_only_child() -> None:
    rng = np.random.default_rng(0)
    assert gene_pool((ALL[0],), LATTICE, reset=0).sample(rng) == ALL[0]


def test_other_parents_and_other_windows_are_noticed() -> None:
    rng = np.random.default_rng(0)
    wide = Lattice(SPACE, COST, window=(int(0.9 * TARGET), int(1.1 * TARGET)))
    assert gene_pool((ALL[0],), LATTICE, reset=0).sample(rng) == ALL[0]
    assert gene_pool((ALL[1],), LATTICE, reset=0).sample(rng) == ALL[1]
    drawn = {gene_pool(PARENTS, wide, reset=0).sample(rng) for _ in range(200)}
    assert any(LATTICE.violation(a) for a in drawn if a)
    assert not any(wide.violation(a) for a in drawn if a)


def test_contributors_explain_every_inherited_gene_with_few_parents() -> None:
    rng, pool = np.random.default_rng(0), gene_pool(PARENTS, LATTICE, reset=0.1)
    for _ in range(100):
        child = pool.sample(rng)
        assert child is not None
        chosen = contributors(SPACE, PARENTS, child)
        inherited = {i for p in PARENTS for i in _shared(child, p)}
        assert {i for c in chosen for i in _shared(child, PARENTS[c])} == inherited
        assert len(set(chosen)) == len(chosen) <= 12
    assert contributors(SPACE, PARENTS, PARENTS[3]) == [3]


def _shared(a: Architecture, b: Architecture) -> set[int]:
    genes = zip(SPACE.genes(a), SPACE.genes(b), strict=True)
    return {i for i, (x, y) in enumerate(genes) if x == y}


def test_parents_without_new_children_leave_their_places_to_random_ones() -> None:
    sampler = ArchitectureSampler(
        LATTICE, proposer="recombination", population_size=1, n_children=4, n_random=0,
        gene_probability=0, seed=0,
    )  # fmt: skip
    study = optuna.create_study(sampler=sampler)
    for value in range(10):
        study.tell(study.ask(SPACE.distributions), value)
    assert [t.user_attrs[ORIGIN] for t in study.trials] == ["random"] + ["substitute"] * 9
    assert len({SPACE.decode(t.params) for t in study.trials}) == 10
