"""The operators of Algorithm 1, line by line."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import optuna
import pytest

from msnas_optuna import ArchitectureSampler, EncoderCost, Lattice, MSNASSpace
from msnas_optuna.samplers import suggest
from msnas_optuna.samplers.algorithm1 import N_CHILDREN, crossover, mutation
from msnas_optuna.storage import ORIGIN, read_plan

SPACE, COST = MSNASSpace(7), EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
PARTS = [slice(0, 3), slice(2, 3), slice(2, 6), slice(0, 6)]
OPERATORS = {
    "crossover_encoder": (2, slice(0, 7)),
    "mutation_encoder": (1, slice(0, 7)),
    "crossover_feature_stride": (2, slice(7, 12)),
    "mutation_feature_stride": (1, slice(7, 12)),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("part", PARTS)
def test_a_crossover_takes_the_end_of_the_part_from_the_second(
    part: slice, rng: np.random.Generator
) -> None:
    pop = np.arange(4)[:, None] * 10 + np.arange(6)  # the tens say whose gene it is
    cuts, pairs = Counter(), Counter()
    for _ in range(100):
        children, parents = crossover(pop, part, rng=rng)
        for child, (first, second) in zip(children, parents.tolist(), strict=True):
            assert first != second
            pairs[first, second] += 1
            assert (child % 10).tolist() == list(range(6))
            of_second = (child // 10 == second).nonzero()[0].tolist()
            assert of_second == list(range(of_second[0], part.stop))
            assert set((child // 10).tolist()) <= {first, second}
            cuts[of_second[0]] += 1
    n = 100 * N_CHILDREN
    assert cuts.keys() == set(range(part.start, part.stop))
    assert min(cuts.values()) > 0.8 * n / len(cuts)
    assert len(pairs) == 12
    assert min(pairs.values()) > 0.7 * n / 12


def test_one_parent_crosses_with_itself_alone(rng: np.random.Generator) -> None:
    pop = np.arange(6)[None]
    children, parents = crossover(pop, slice(0, 6), rng=rng)
    assert (children == pop).all()
    assert not parents.any()


def test_a_mutation_resets_each_gene_of_the_part_by_itself(rng: np.random.Generator) -> None:
    sizes, part = [2, 3, 3, 4, 5, 5], slice(1, 5)
    pop = np.array([[0, 1, 2, 3, 4, 0], [1, 2, 0, 0, 0, 4]])
    made = [mutation(pop, part, rng=rng, sizes=sizes, reset=0.3) for _ in range(300)]
    children = np.concatenate([c for c, _ in made])
    parents = np.concatenate([p for _, p in made])[:, 0]
    assert parents.mean() == pytest.approx(0.5, abs=0.03)
    changed = children != pop[parents]
    assert not changed[:, [0, 5]].any()
    wanted = [0.3 * (1 - 1 / size) for size in sizes[part]]
    assert changed[:, part].mean(axis=0) == pytest.approx(wanted, abs=0.02)
    assert abs(np.corrcoef(changed[:, part].T) - np.eye(4)).max() < 0.05
    for column, size in zip(children.T[part], sizes[part], strict=True):
        assert set(column.tolist()) == set(range(size))


@pytest.mark.parametrize(("reset", "kept"), [(0, True), (1, False)])
def test_the_ends_of_the_chance_to_reset(
    reset: float, kept: bool, rng: np.random.Generator
) -> None:
    pop = np.zeros((3, 4), int)
    children, _ = mutation(pop, slice(0, 4), rng=rng, sizes=[9] * 4, reset=reset)
    assert (not children.any()) is kept
    assert pop.tolist() == [[0] * 4] * 3  # the parents stay as they are


def objective(trial: optuna.Trial) -> float:
    genes = SPACE.genes(suggest(trial, LATTICE))
    return sum(math.sin(i * gene) for i, gene in enumerate(genes, start=1))


def searched(n_trials: int, **settings: float) -> optuna.Study:
    sampler = ArchitectureSampler(LATTICE, population_size=16, n_children=8, seed=0, **settings)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def test_all_operators_contribute_and_name_their_parents() -> None:
    study = searched(120, n_random=0)
    genes = [SPACE.genes(SPACE.decode(t.params)) for t in study.trials]
    origins = Counter(t.user_attrs[ORIGIN] for t in study.trials)
    assert set(origins) == {"random", "substitute", *OPERATORS}
    assert origins["random"] == 16
    for trial in study.trials:
        plan = read_plan(trial)
        assert plan is not None
        if plan.origin in ("random", "substitute"):
            assert plan.parents == ()
            continue
        n_parents, part = OPERATORS[plan.origin]
        assert len(set(plan.parents)) == n_parents
        child, (first, *others) = genes[trial.number], (genes[p] for p in plan.parents)
        beside = [i for i in range(12) if not part.start <= i < part.stop]
        assert all(child[i] == first[i] for i in beside)
        assert child[part] != first[part]
        if others:
            assert all(c in pair for c, *pair in zip(child, first, *others, strict=True))


def origins(study: optuna.Study) -> list[str]:
    return [t.user_attrs[ORIGIN] for t in study.trials]


def test_without_resets_only_crossovers_make_children_until_there_are_no_new_ones() -> None:
    found = origins(searched(80, n_random=0, gene_probability=0))
    assert set(found[:16]) == {"random"}
    crossovers = {"crossover_encoder", "crossover_feature_stride"}
    assert set(found[16:]) == {*crossovers, "substitute"}


def test_one_parent_has_mutants_alone() -> None:
    sampler = ArchitectureSampler(LATTICE, population_size=1, n_children=8, n_random=0, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=30)
    assert set(origins(study)) == {
        "random", "substitute", "mutation_encoder", "mutation_feature_stride"
    }  # fmt: skip


def test_more_attempts_leave_fewer_places_to_substitutes() -> None:
    few, many = (
        origins(searched(80, n_random=0, max_attempts=m)).count("substitute") for m in (1, 30)
    )
    assert 0 < many < few


def test_no_attempt_is_made_for_random_children() -> None:
    assert origins(searched(40, n_random=8, max_attempts=30))[16:24] == ["random"] * 8
