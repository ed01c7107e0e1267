"""Studies for figures: real proposals and values, looked up in a table; nothing is trained."""

from __future__ import annotations

import optuna
import pytest
from optuna.study import Study

from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.methods.msnas.tabular import TabularBenchmark, TabularObjective, load_table
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import CONFIG, write_curve

optuna.logging.set_verbosity(optuna.logging.ERROR)

POPULATION = 6


@pytest.fixture(scope="session")
def table() -> TabularBenchmark:
    return load_table()


@pytest.fixture(scope="session")
def searched(table: TabularBenchmark) -> Study:
    """A finished search of five generations, with the configuration that a study file stores."""
    return search(table, 30, optuna.storages.InMemoryStorage())


def search(table: TabularBenchmark, trials: int, storage: optuna.storages.BaseStorage) -> Study:
    sampler = ArchitectureSampler(
        table.feasible, population_size=POPULATION, n_children=4, n_random=2, seed=1
    )
    study = optuna.create_study(
        direction="maximize", sampler=sampler, study_name="searched", storage=storage
    )
    study.set_user_attr(CONFIG, configuration(table.feasible, population_size=POPULATION))
    objective = TabularObjective(table)

    def evaluate(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.set_user_attr("ap_small", value - 0.1)
        trial.set_user_attr("ap_medium", value)
        trial.set_user_attr("ap_large", None)
        return value

    study.optimize(evaluate, n_trials=trials)
    return study


def configuration(feasible: Lattice, *, population_size: int) -> dict[str, object]:
    """What the study file of a search in this window stores."""
    cost, (low, high) = feasible.cost, feasible.window
    return {
        "space.n_blocks": feasible.space.n_blocks,
        "space.block": cost.block,
        "space.channels": cost.channels,
        "space.stem_channels": cost.stem_channels,
        "budget.target_gflops": (low + high) / 2e9,
        "budget.tolerance": (high - low) / (high + low),
        "budget.input_size": list(cost.input_size),
        "data.image_size": list(cost.input_size),
        "sampler.population_size": population_size,
    }


@pytest.fixture(scope="session")
def by_hand(table: TabularBenchmark, searched: Study) -> Study:
    """The study beside a search that holds the FPN-like path."""
    study = beside(searched, "fpn-like")
    space = table.space
    add_trial(study, space, space.fpn_like(), 0.3)
    return study


@pytest.fixture(scope="session")
def standalone(table: TabularBenchmark, searched: Study) -> Study:
    """The best three, trained alone, in the opposite order, and the FPN-like path."""
    study = beside(searched, "retrain")
    best = sorted(searched.trials, key=lambda t: -t.value)[:3]
    paths = [*(table.space.decode(t.params) for t in best), table.space.fpn_like()]
    for path, value in zip(paths, (0.4, 0.5, 0.6, 0.2), strict=True):
        add_trial(study, table.space, path, value)
    return study


def add_trial(study: Study, space: MSNASSpace, architecture: Architecture, *values: float) -> None:
    """Adds a finished trial that no sampler has proposed."""
    study.add_trial(
        optuna.create_trial(
            params=space.encode(architecture), distributions=space.distributions, values=values
        )
    )


def beside(searched: Study, stage: str) -> Study:
    """The study of a stage, in the storage of the search."""
    return optuna.create_study(
        direction="maximize",
        study_name=f"{searched.study_name}-{stage}",
        storage=searched._storage,
    )


@pytest.fixture(scope="session")
def complete(searched: Study, by_hand: Study, standalone: Study) -> Study:
    """The search with all that stands beside it, and with the losses of its training."""
    write_curve(searched, "supernet", [3.0, 2.0, 1.0])
    return searched
