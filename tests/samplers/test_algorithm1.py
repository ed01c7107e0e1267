"""The operators of Algorithm 1, line by line."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from msnas_optuna import Architecture, ArchitectureSampler, EncoderCost, Lattice, MSNASSpace
from msnas_optuna.samplers.algorithm1 import crossover, mutation, vary
from msnas_optuna.samplers.history import Candidate, Record
from msnas_optuna.spaces.base import suggest
from msnas_optuna.storage import ORIGIN, read_plan

SPACE, COST = MSNASSpace(7), EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
ENCODER, FEATURES = slice(0, 7), slice(7, 12)
CHOICES = [d.choices for d in SPACE.distributions.values()]
OPERATORS = [
    "crossover_encoder", "mutation_encoder", "crossover_feature_stride", "mutation_feature_stride"
]  # fmt: skip


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("part", [slice(0, 3), slice(2, 3), slice(2, 6), slice(0, 6)])
def test_a_crossover_takes_the_end_of_the_part_from_the_second(
    part: slice, rng: np.random.Generator
) -> None:
    a, b = tuple("abcdef"), tuple("ABCDEF")
    children = Counter(crossover(a, b, part, rng=rng) for _ in range(600))
    n = part.stop - part.start
    wanted = {a[:cut] + b[cut : part.stop] + a[part.stop :] for cut in range(*part.indices(6))}
    assert children.keys() == wanted
    assert min(children.values()) > 0.7 * 600 / n


def test_a_mutation_resets_each_gene_of_the_part_by_itself(rng: np.random.Generator) -> None:
    a = SPACE.genes(LATTICE.at(3))
    mutants = [
        mutation(a, ENCODER, choices=CHOICES[ENCODER], rng=rng, reset=0.3) for _ in range(3000)
    ]
    assert {m[FEATURES] for m in mutants} == {a[FEATURES]}
    changed = np.array([[x != y for x, y in zip(a, m, strict=True)] for m in mutants])[:, ENCODER]
    assert changed.mean(axis=0) == pytest.approx([0.3 * 2 / 3] * 7, abs=0.04)
    together = np.corrcoef(changed.T) - np.eye(7)
    assert abs(together).max() < 0.08
    for i, choices in enumerate(CHOICES[ENCODER]):
        assert {m[i] for m in mutants} == set(choices)


@pytest.mark.parametrize(("reset", "kept"), [(0, True), (1, False)])
def test_the_ends_of_the_chance_to_reset(
    reset: float, kept: bool, rng: np.random.Generator
) -> None:
    a = SPACE.genes(LATTICE.at(3))
    mutants = {
        mutation(a, FEATURES, choices=CHOICES[FEATURES], rng=rng, reset=reset) for _ in range(50)
    }
    assert (mutants == {a}) is kept


def population(*indices: int) -> list[Candidate[Architecture]]:
    found = []
    for number, index in enumerate(indices):
        trial, architecture = create_trial(value=0.0), LATTICE.at(index)
        trial.number = 10 + number
        record = Record(trial, number, None, 0, architecture, (0.0,))
        found.append(Candidate(architecture, (0.0,), (record,)))
    return found


def test_each_operator_varies_its_part_and_names_its_parents(rng: np.random.Generator) -> None:
    parents = population(0, 50, 100, 200)
    by_number = {p.number: SPACE.genes(p.architecture) for p in parents}
    children = [vary(parents, SPACE, rng=rng, reset=0.2) for _ in range(2000)]
    counts = Counter(child.origin for child in children)
    assert {origin: round(n / 500, 1) for origin, n in counts.items()} == pytest.approx(
        dict.fromkeys(OPERATORS, 1), abs=0.2
    )
    for child in children:
        first, *others = (by_number[number] for number in child.parents)
        other_part = FEATURES if child.origin.endswith("encoder") else ENCODER
        genes = SPACE.genes(child.architecture)
        assert genes[other_part] == first[other_part]
        assert len(others) == child.origin.startswith("crossover")
        if others:
            assert child.parents[0] != child.parents[1]
            assert all(g in pair for g, *pair in zip(genes, first, *others, strict=True))
    assert {child.parents[0] for child in children} == set(by_number)


def test_one_parent_can_only_mutate(rng: np.random.Generator) -> None:
    children = [vary(population(7), SPACE, rng=rng, reset=0.2) for _ in range(100)]
    assert {c.origin for c in children} == {"mutation_encoder", "mutation_feature_stride"}
    assert {c.parents for c in children} == {(10,)}


def objective(trial: optuna.Trial) -> float:
    genes = SPACE.genes(suggest(trial, LATTICE))
    return sum(math.sin(i * gene) for i, gene in enumerate(genes, start=1))


def searched(n_trials: int, **settings: float) -> list[str]:
    sampler = ArchitectureSampler(LATTICE, population_size=16, n_children=8, seed=0, **settings)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    for trial in study.trials:
        plan = read_plan(trial)
        assert plan is not None
        assert len(plan.parents) == {"cross": 2, "mutat": 1, "rando": 0}[plan.origin[:5]]
    return [trial.user_attrs[ORIGIN] for trial in study.trials]


def test_all_operators_contribute_under_their_names() -> None:
    assert set(searched(120, n_random=0, max_attempts=200)) == {"random", *OPERATORS}


def test_after_its_attempts_a_random_child_takes_the_place_and_says_so() -> None:
    once, often = (
        searched(80, n_random=0, max_attempts=1),
        searched(80, n_random=0, max_attempts=200),
    )
    assert once.count("random") > 60
    assert often.count("random") < 35


def test_no_attempt_is_made_for_random_children() -> None:
    assert searched(40, n_random=8, max_attempts=200)[16:24] == ["random"] * 8
