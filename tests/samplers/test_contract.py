"""Optuna's own contract for samplers, and its reproducibility tests rewritten for ours.

The contract suggests parameters that are no part of any space of architectures: they get random
values, while each trial is planned beside them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from msnas_optuna import ArchitectureSampler, EncoderCost, Lattice, MSNASSpace
from msnas_optuna.samplers import suggest

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))

optuna.logging.set_verbosity(optuna.logging.ERROR)


def new_sampler(seed: int | None = None) -> ArchitectureSampler[Any]:
    return ArchitectureSampler(
        LATTICE, population_size=4, n_children=4, n_random=1, max_attempts=50, seed=seed
    )


class TestArchitectureSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return new_sampler


def objective(trial: optuna.Trial) -> float:
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    strides = suggest(trial, LATTICE).strides
    depth = trial.suggest_int("depth", 1, 5)
    return learning_rate + depth + sum(i * stride for i, stride in enumerate(strides))


def run_study(*, seed: int | None, n_trials: int = 30) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=new_sampler(seed))
    study.optimize(objective, n_trials=n_trials)
    return [trial.params for trial in study.trials]


def test_equal_seeds_give_equal_studies() -> None:
    study = run_study(seed=1)
    assert study == run_study(seed=1) != run_study(seed=2)
    assert len({params["learning_rate"] for params in study}) == len(study)


def test_without_a_seed_studies_differ() -> None:
    assert run_study(seed=None) != run_study(seed=None)


def test_another_process_with_another_hash_seed_proposes_the_same() -> None:
    code = (
        "import sys; sys.path[:0] = ['tests/samplers', '.']\n"
        "from test_contract import run_study\n"
        "print(run_study(seed=1))"
    )
    command = [sys.executable, "-c", code]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert fresh.strip() == repr(run_study(seed=1))


def test_reseeding_changes_what_is_sampled() -> None:
    sampler = new_sampler(1)
    sampler.reseed_rng()
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=5)
    assert [trial.params for trial in study.trials] != run_study(seed=1, n_trials=5)


def test_parameters_beside_the_space_do_not_depend_on_the_order_they_are_asked_in() -> None:
    def reversed_order(trial: optuna.Trial) -> float:
        depth = trial.suggest_int("depth", 1, 5)
        suggest(trial, LATTICE)
        return depth + trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)

    study = optuna.create_study(sampler=new_sampler(1))
    study.optimize(reversed_order, n_trials=4)
    assert [trial.params for trial in study.trials] == run_study(seed=1, n_trials=4)


def test_threads_may_share_the_sampler() -> None:
    study = optuna.create_study(sampler=new_sampler(1))
    study.optimize(objective, n_trials=60, n_jobs=4)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 60
    names = SPACE.distributions
    assert len({tuple(trial.params[name] for name in names) for trial in study.trials}) == 60
