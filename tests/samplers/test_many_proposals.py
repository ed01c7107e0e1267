"""Ten thousand proposals in a published space: all valid, all in the window, none twice."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import open_storage, read_plan

SPACE, COST = MSNASSpace(13), EncoderCost.from_preset("r18")
TARGET = PRESETS["r18"].target_gflops * 1e9
WINDOW = (math.ceil(0.99 * TARGET), math.floor(1.01 * TARGET))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

optuna.logging.set_verbosity(optuna.logging.ERROR)


def cheap(params: dict[str, float]) -> float:
    """Smooth in the encoder, rugged in the rest, so that the population moves on."""
    values = list(params.values())
    rugged = np.random.default_rng([int(2 * v) for v in values]).normal()
    return float(sum(math.sin(i * v) for i, v in enumerate(values, start=1)) + 4 * rugged)


def study_in(storage: optuna.storages.BaseStorage | None = None) -> Study:
    sampler = ArchitectureSampler(Lattice(SPACE, COST, window=WINDOW), seed=0)
    return optuna.create_study(
        direction="maximize",
        sampler=sampler,
        storage=storage,
        study_name="many",
        load_if_exists=True,
    )


def propose(study: Study, n_trials: int) -> None:
    for _ in range(n_trials):
        trial = study.ask(SPACE.distributions)
        study.tell(trial, cheap(trial.params))


def architecture(trial: FrozenTrial) -> Architecture:
    plan = read_plan(trial)
    assert plan is not None
    assert trial.params == plan.params
    return SPACE.decode(plan.params)


def assert_exact(study: Study, n_trials: int) -> None:
    trials = study.get_trials(deepcopy=False)
    proposed = [architecture(trial) for trial in trials]
    assert len(proposed) == n_trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(SPACE.violation(a) is None for a in proposed)
    assert all(WINDOW[0] <= COST.total(a) <= WINDOW[1] for a in proposed)
    assert len(set(proposed)) == n_trials


def test_ten_thousand_in_one_process() -> None:
    study = study_in()
    propose(study, 10_000)
    assert_exact(study, 10_000)


WORKER = """
import sys
sys.path[:0] = ['tests/samplers', '.']
from test_many_proposals import propose, study_in
from msnas_optuna.storage import open_storage
url, n_trials = sys.argv[1:]
propose(study_in(open_storage(url)), int(n_trials))
"""


@pytest.mark.parametrize("url", ["sqlite:///{}/study.db", "journal:///{}/study.log"])
def test_eight_processes(url: str, tmp_path: Path) -> None:
    n_trials = 1_600
    url = url.format(tmp_path)
    command = [sys.executable, "-c", WORKER, url, str(n_trials // 8)]
    workers = [subprocess.Popen(command) for _ in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
    assert_exact(study_in(open_storage(url)), n_trials)
