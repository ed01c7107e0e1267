"""Optuna's own contract for samplers, and its reproducibility tests rewritten for ours."""

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

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.samplers import MSNASSampler
from msnas_optuna.spaces.lattice import Lattice


class TestGenericMSNASSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MSNASSampler(population_size=4, n_children=4, n_random=1)


class TestArchitectureMSNASSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    """Parameters outside the space must still work while architectures are proposed."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: _on_architectures(None)


def _on_architectures(seed: int | None) -> MSNASSampler:
    space, cost = MSNASSpace(7), EncoderCost("basic", 32, (128, 128), 32)
    target = cost.total(space.fpn_like())
    lattice = Lattice(space, cost, window=(int(0.99 * target), int(1.01 * target)))
    return MSNASSampler(lattice, population_size=4, n_children=4, n_random=1, seed=seed)


def _generic(seed: int | None) -> MSNASSampler:
    return MSNASSampler(population_size=4, n_children=4, n_random=1, seed=seed)


def _suggest(trial: optuna.Trial) -> float:
    if getattr(trial.study.sampler, "_feasible", None) is not None:
        names = MSNASSpace(7).distributions
        values = [trial._suggest(name, distribution) for name, distribution in names.items()]
        return float(sum(i * v for i, v in enumerate(values)))
    a = trial.suggest_float("a", 0, 9)
    b = trial.suggest_float("b", 0.1, 1e6, log=True)
    c = trial.suggest_int("c", -5, 5)
    d = trial.suggest_categorical("d", ["x", "y"])
    return a + (1 / b if d == "x" else b) + c


def run_study(kind: str, *, seed: int | None, n_trials: int = 30) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make = {"architectures": _on_architectures, "generic": _generic}[kind]
    study = optuna.create_study(sampler=make(seed))
    study.optimize(_suggest, n_trials=n_trials)
    return [trial.params for trial in study.trials]


KINDS = pytest.mark.parametrize("kind", ["architectures", "generic"])


@KINDS
def test_equal_seeds_give_equal_studies(kind: str) -> None:
    assert run_study(kind, seed=1) == run_study(kind, seed=1) != run_study(kind, seed=2)


@KINDS
def test_without_a_seed_studies_differ(kind: str) -> None:
    assert run_study(kind, seed=None) != run_study(kind, seed=None)


def test_another_process_with_another_hash_seed_proposes_the_same() -> None:
    code = (
        "import sys; sys.path[:0] = ['tests/samplers', '.']\n"
        "from test_contract import run_study\n"
        "print([run_study(kind, seed=1) for kind in ('architectures', 'generic')])"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert fresh.strip() == repr([run_study(k, seed=1) for k in ("architectures", "generic")])


@KINDS
def test_reseeding_changes_what_is_sampled(kind: str) -> None:
    make = {"architectures": _on_architectures, "generic": _generic}[kind]
    sampler = make(1)
    sampler.reseed_rng()
    study = optuna.create_study(sampler=sampler)
    study.optimize(_suggest, n_trials=30)
    assert [trial.params for trial in study.trials] != run_study(kind, seed=1)


@KINDS
def test_threads_may_share_the_sampler(kind: str) -> None:
    make = {"architectures": _on_architectures, "generic": _generic}[kind]
    study = optuna.create_study(sampler=make(1))
    study.optimize(_suggest, n_trials=60, n_jobs=4)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 60
    if kind == "architectures":
        assert len({tuple(trial.params.items()) for trial in study.trials}) == 60
