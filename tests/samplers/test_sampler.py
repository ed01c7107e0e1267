"""What the sampler promises whatever proposes: parents, noise, races, retries, queued trials."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers import ArchitectureSampler, suggest
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import (
    GENERATION,
    ORIGIN,
    PLAN,
    Plan,
    Worker,
    open_storage,
    read_plan,
    recover_lost_trials,
    repeat_of,
    write_plan,
)
from msnas_optuna.storage.optuna_private import sample
from msnas_optuna.storage.records import STUDY_ID

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
DISTRIBUTIONS = SPACE.distributions
OPERATORS = {
    f"{operator}_{part}" for operator in ("crossover", "mutation") for part in SPACE.parts
}
SMALL = {"population_size": 8, "n_children": 6, "n_random": 2, "max_attempts": 5}

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial: optuna.Trial) -> float:
    values = SPACE.genes(suggest(trial, LATTICE))
    return float(sum(math.sin(i * v) for i, v in enumerate(values, start=1)))


def new_study(*, seed: int | None = 0, storage: Any = None, **settings: Any) -> Study:
    sampler = ArchitectureSampler(LATTICE, seed=seed, **(SMALL | settings))
    return optuna.create_study(
        direction="maximize",
        sampler=sampler,
        storage=storage,
        study_name="study",
        load_if_exists=True,
    )


def architecture(trial: FrozenTrial) -> Architecture:
    return SPACE.decode(trial.params)


def proposals(study: Study) -> dict[int, tuple[Any, ...]]:
    """What each slot proposed, by slot, without the numbers of trials."""
    found = {}
    for trial in study.trials:
        plan = read_plan(trial)
        if plan is not None:
            found[plan.slot] = (dict(plan.params), plan.generation, plan.origin, plan.repeat)
    return found


# Generations


def test_trials_that_cannot_be_parents_are_passed_over() -> None:
    study = new_study()
    study.optimize(objective, n_trials=8)
    good = study.trials[0].params
    kept = {t.number for t in study.trials}
    held = set(map(architecture, study.trials))
    others = [SPACE.encode(a) for a in LATTICE if a not in held][:2]
    outside = SPACE.encode(Architecture((1, 1, 1, 1, 1, 1, 2), (4, 4, 4, 4, 8)))
    for params, value, constraints, state in [
        (others[0], math.inf, {}, TrialState.COMPLETE),
        (others[1], 99.0, {"memory": 1.0}, TrialState.COMPLETE),
        (outside, 99.0, {}, TrialState.COMPLETE),
        (good, None, {}, TrialState.FAIL),
    ]:
        study.add_trial(
            create_trial(
                params=params,
                distributions=DISTRIBUTIONS,
                value=value,
                state=state,
                constraints=constraints,
            )
        )
    assert {t.number for t in study.sampler.select_parent(study, 1)} == kept


def test_a_trial_of_another_sampler_may_be_a_parent() -> None:
    study = new_study()
    study.optimize(objective, n_trials=8)
    new = next(a for a in map(LATTICE.at, range(297)) if a not in map(architecture, study.trials))
    study.add_trial(
        create_trial(params=SPACE.encode(new), distributions=DISTRIBUTIONS, value=99.0)
    )
    assert study.sampler.select_parent(study, 1)[0].number == 8
    assert study.sampler.get_trial_generation(study, study.trials[8]) == 0
    study.optimize(objective, n_trials=1)
    assert study.trials[9].user_attrs[GENERATION] == 1


def test_two_objectives() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ArchitectureSampler(LATTICE, seed=0, **SMALL)
    )
    study.optimize(lambda trial: (objective(trial), trial.params["stride_01"]), n_trials=40)
    front = {t.number for t in study.best_trials}
    parents = [t.number for t in study.sampler.select_parent(study, 9)]
    assert len(parents) == 8
    assert set(parents) <= front or front <= set(parents)


# Noise


NOISY = {"n_reevaluated": 3}


def noisy(trial: optuna.Trial) -> float:
    noise = np.random.default_rng([repeat_of(trial), *map(int, map(hash, trial.params.values()))])
    return objective(trial) + float(noise.normal())


def measurements(study: Study) -> dict[Architecture, list[FrozenTrial]]:
    found: dict[Architecture, list[FrozenTrial]] = {}
    for trial in study.trials:
        found.setdefault(architecture(trial), []).append(trial)
    return found


def test_slots_after_the_random_children_measure_the_best_again() -> None:
    study = new_study(**NOISY)
    study.optimize(noisy, n_trials=8 + 4 * 11)
    origins = [t.user_attrs[ORIGIN] for t in study.trials]
    again = [i for i, origin in enumerate(origins) if origin == "reevaluated"]
    assert again == [start + i for start in (8, 19, 30, 41) for i in (2, 3, 4)]
    assert [t.user_attrs[GENERATION] for t in study.trials[8:19]] == [1] * 11
    fresh = [architecture(t) for i, t in enumerate(study.trials) if i not in again]
    assert len(set(fresh)) == len(fresh)
    assert {architecture(study.trials[i]) for i in again} <= set(fresh)


def test_each_measurement_of_an_architecture_has_a_number_of_its_own() -> None:
    study = new_study(**NOISY)
    study.optimize(noisy, n_trials=100)
    repeated = [trials for trials in measurements(study).values() if len(trials) > 1]
    assert repeated
    for trials in repeated:
        assert [read_plan(t).repeat for t in trials] == list(range(len(trials)))
        assert len({t.value for t in trials}) == len(trials)
        assert {read_plan(t).parents for t in trials[1:]} == {(trials[0].number,)}


def test_parents_are_ranked_by_the_mean_of_their_measurements() -> None:
    study = new_study(**NOISY)
    study.optimize(noisy, n_trials=100)
    means = {a: np.mean([t.value for t in ts]) for a, ts in measurements(study).items()}
    best = sorted(means, key=lambda a: -means[a])[:8]
    assert [architecture(t) for t in study.sampler.select_parent(study, 99)] == best


def test_two_workers_that_count_in_step_part(monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study(n_reevaluated=1)
    study.optimize(objective, n_trials=10)
    counted: list[int] = []

    def race(study: Study, trial: FrozenTrial, plan: Plan) -> None:
        """The other worker takes the next number whenever ours has taken one."""
        write_plan(study, trial, plan)
        counted.append(len(counted) + 1)
        worker = Worker.current(len(study.trials))
        other = replace(plan, slot=100, repeat=counted[-1], worker=worker)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(plan.params),
                distributions=DISTRIBUTIONS,
                system_attrs={PLAN: other.to_json()},
            )
        )

    monkeypatch.setattr("msnas_optuna.samplers.sampler.write_plan", race)
    trial = study.ask(DISTRIBUTIONS)
    plan = read_plan(study.trials[trial.number])
    assert plan is not None
    assert plan.origin == "reevaluated"
    assert plan.repeat not in counted
    assert 1 < len(counted) < 20


def test_the_least_measured_of_the_best_is_next() -> None:
    study = new_study(n_reevaluated=2)
    study.optimize(objective, n_trials=8)
    first, second = study.sampler.select_parent(study, 1)[:2]
    known = {tuple(t.params.values()): t.value for t in (first, second)}
    study.optimize(  # all others are worse, so the best stay the best
        lambda trial: known.get(SPACE.genes(suggest(trial, LATTICE)), -99.0), n_trials=4 * 10
    )
    for start in (10, 20, 30, 40):
        assert [t.params for t in study.trials[start : start + 2]] == [first.params, second.params]


def test_a_measurement_gets_a_number_behind_all_that_are_taken() -> None:
    study = new_study(n_reevaluated=1)
    study.optimize(objective, n_trials=8)
    (best,) = study.sampler.select_parent(study, 1)[:1]
    plan = read_plan(best)
    assert plan is not None
    again = create_trial(
        params=best.params,
        distributions=DISTRIBUTIONS,
        value=best.value,
        system_attrs={PLAN: replace(plan, slot=8, repeat=5, worker=Worker.current(8)).to_json()},
    )
    study.add_trial(again)  # of a worker that has counted on
    study.optimize(objective, n_trials=2)
    last = read_plan(study.trials[-1])
    assert last is not None
    assert (last.origin, last.repeat) == ("reevaluated", 6)


def test_several_objectives_spread_the_measurements_over_the_population() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=ArchitectureSampler(LATTICE, seed=0, n_reevaluated=3, **SMALL),
    )
    study.optimize(lambda trial: (noisy(trial), trial.params["stride_01"]), n_trials=8 + 11)
    assert len({architecture(t) for t in study.trials[10:13]}) == 3


def test_a_space_without_anything_new_is_measured_again() -> None:
    study = new_study(**NOISY)
    study.optimize(noisy, n_trials=450)
    assert len(measurements(study)) == 297
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_a_first_population_larger_than_the_window_measures_again_too() -> None:
    five = Lattice(SPACE, COST, window=smallest_window(5))
    settings = {"population_size": 8, "n_children": 4, "n_random": 1, "n_reevaluated": 2}
    study = optuna.create_study(sampler=ArchitectureSampler(five, seed=0, **settings))
    study.optimize(objective, n_trials=12)
    assert len(measurements(study)) == five.count() < 8
    assert len(study.trials) == 12


def smallest_window(least: int) -> tuple[int, int]:
    """Around the target, with at least this many architectures."""
    totals = sorted(COST.total(LATTICE.at(i)) for i in range(LATTICE.count()))
    found = next((a, b) for a, b in zip(totals, totals[least - 1 :], strict=False))
    assert sum(found[0] <= t <= found[1] for t in totals) < 8
    return found


def test_equal_trials_of_another_sampler_are_counted() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    repeats = []

    def count(trial: optuna.Trial) -> float:
        objective(trial)
        repeats.append(repeat_of(trial))
        return 0.0

    for index in (3, 3, 4, 3):
        study.enqueue_trial(SPACE.encode(LATTICE.at(index)))
    study.optimize(count, n_trials=4)
    assert repeats == [0, 1, 0, 2]


def test_a_queued_architecture_may_be_measured_again() -> None:
    study = new_study()
    for _ in range(3):
        study.enqueue_trial(SPACE.encode(LATTICE.at(3)))
    study.optimize(objective, n_trials=3)
    assert [read_plan(t).repeat for t in study.trials] == [0, 1, 2]


# No repeats


def test_failed_running_and_waiting_trials_are_not_proposed_again() -> None:
    study = new_study()
    running = study.ask(DISTRIBUTIONS)
    failed = study.ask(DISTRIBUTIONS)
    study.tell(failed, state=TrialState.FAIL)
    planned = study.ask()
    sample(planned)  # has a plan, but no parameter yet
    added = create_trial(
        params=SPACE.encode(LATTICE.at(0)), distributions=DISTRIBUTIONS, state=TrialState.PRUNED
    )
    study.add_trial(added)
    study.optimize(objective, n_trials=297 - 4)
    everything = {architecture(t) for t in study.trials if t.params}
    plan = read_plan(study.trials[planned.number])
    assert plan is not None
    assert len(everything) == 296
    assert SPACE.decode(plan.params) not in everything
    assert running.number == 0


class Racing(Lattice):
    """Another worker proposes the same architecture between our reading and our writing."""

    study: Study | None = None

    def sample(self, rng: np.random.Generator) -> Architecture:
        drawn = super().sample(rng)
        if self.study is not None:
            study, self.study = self.study, None
            params = SPACE.encode(drawn)
            waiting = create_trial(
                params=params, distributions=DISTRIBUTIONS, state=TrialState.WAITING
            )
            study.add_trial(waiting)
        return drawn


def test_a_worker_that_finds_its_architecture_taken_plans_again() -> None:
    racing = Racing(SPACE, COST, window=LATTICE.window)
    study = optuna.create_study(sampler=ArchitectureSampler(racing, seed=0, **SMALL))
    racing.study = study
    trial = study.ask(DISTRIBUTIONS)
    assert trial.params != study.trials[1].params
    assert LATTICE.violation(SPACE.decode(trial.params)) is None


WORKER = """
import sys
sys.path[:0] = ['tests/samplers', '.']
from test_sampler import new_study, objective
from msnas_optuna.storage import open_storage
study = new_study(storage=open_storage(sys.argv[1]), n_reevaluated=int(sys.argv[2]))
study.optimize(objective, n_trials=15)
"""


def test_processes_number_the_measurements_that_they_share(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/study.log"
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, "8"]) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    study = new_study(storage=open_storage(url), n_reevaluated=8)
    assert Counter(t.user_attrs[GENERATION] for t in study.trials) == {
        0: 8,
        1: 16,
        2: 16,
        3: 16,
        4: 4,
    }
    for trials in measurements(study).values():
        repeats = [read_plan(t).repeat for t in trials]
        assert len(set(repeats)) == len(repeats)
        assert [t.user_attrs[ORIGIN] == "reevaluated" for t in trials].count(False) == 1


# Resuming


@pytest.mark.parametrize("settings", [{}, NOISY], ids=["once", "reevaluated"])
def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(settings: Any) -> None:
    whole = new_study(**settings)
    whole.optimize(noisy, n_trials=45)
    storage = optuna.storages.InMemoryStorage()
    for n_trials in (5, 1, 20, 19):
        new_study(storage=storage, **settings).optimize(noisy, n_trials=n_trials)
    assert proposals(new_study(storage=storage)) == proposals(whole)


@pytest.mark.parametrize(
    ("settings", "killed_at", "suggested"),
    [({}, 3, 0), ({}, 12, 5), ({}, 20, 12), (NOISY, 3, 12), (NOISY, 11, 0), (NOISY, 16, 5)],
)
def test_a_killed_and_repeated_trial_changes_no_later_proposal(
    killed_at: int, suggested: int, settings: Any
) -> None:
    whole = new_study(**settings)
    whole.optimize(objective, n_trials=40)
    storage = optuna.storages.InMemoryStorage()
    study = new_study(storage=storage, **settings)
    study.optimize(objective, n_trials=killed_at)
    killed = study.ask()
    for name, distribution in list(DISTRIBUTIONS.items())[:suggested]:
        killed._suggest(name, distribution)
    study.tell(killed, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback(max_retry=2)(study, study.trials[-1])
    resumed = new_study(storage=storage, **settings)
    resumed.optimize(objective, n_trials=40 - killed_at)
    assert proposals(resumed) == proposals(whole)
    assert resumed.trials[killed_at + 1].params == whole.trials[killed_at].params
    values = [t.value for t in resumed.trials if t.state == TrialState.COMPLETE]
    assert values == [t.value for t in whole.trials]


def test_a_trial_that_died_before_its_plan_is_planned_by_its_repetition() -> None:
    whole = new_study()
    whole.optimize(objective, n_trials=30)
    study = new_study()
    study.optimize(objective, n_trials=12)
    lost = study._storage.create_new_trial(study._study_id)
    study._storage.set_trial_state_values(lost, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
    study.optimize(objective, n_trials=18)
    assert proposals(study) == proposals(whole)


def test_one_sampler_may_serve_several_studies() -> None:
    sampler = ArchitectureSampler(LATTICE, seed=0, **SMALL)
    directions = ["maximize", "minimize"]
    studies = [optuna.create_study(direction=d, sampler=sampler) for d in directions]
    for _ in range(20):
        for study in studies:
            study.optimize(objective, n_trials=1)
    for study, direction in zip(studies, directions, strict=True):
        whole = optuna.create_study(
            direction=direction, sampler=ArchitectureSampler(LATTICE, seed=0, **SMALL)
        )
        whole.optimize(objective, n_trials=20)
        assert proposals(study) == proposals(whole)


def test_a_pickled_sampler_goes_on() -> None:
    study, whole = new_study(), new_study()
    whole.optimize(objective, n_trials=30)
    study.optimize(objective, n_trials=15)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(objective, n_trials=15)
    assert proposals(study) == proposals(whole)


# Queued trials


def test_a_queued_architecture_is_evaluated_as_it_is_and_never_proposed() -> None:
    study = new_study()
    study.enqueue_trial({n: int(v) if v != 0.5 else v for n, v in
                         SPACE.encode(LATTICE.at(5)).items()})  # fmt: skip
    study.add_trial(
        create_trial(
            params=SPACE.encode(LATTICE.at(7)),
            distributions=DISTRIBUTIONS,
            state=TrialState.WAITING,
        )
    )
    study.optimize(objective, n_trials=297)
    assert [architecture(t) for t in study.trials[:2]] == [LATTICE.at(5), LATTICE.at(7)]
    plan = read_plan(study.trials[0])
    assert plan is not None
    assert repr(plan.params) == repr(SPACE.encode(LATTICE.at(5)))  # 1.0, not 1
    assert [t.user_attrs[ORIGIN] for t in study.trials[:3]] == ["queued", "queued", "random"]
    assert len({architecture(t) for t in study.trials}) == 297


def test_open_parameters_of_a_queued_trial_are_drawn_to_fit() -> None:
    study = new_study()
    for first in (1.0, 2.0):
        study.enqueue_trial({"stride_01": first, "feature_stride_1": 8})
    study.optimize(objective, n_trials=2)
    for trial, first in zip(study.trials, (1.0, 2.0), strict=True):
        assert (trial.params["stride_01"], trial.params["feature_stride_1"]) == (first, 8)
        assert LATTICE.violation(architecture(trial)) is None
        assert trial.user_attrs[ORIGIN] == "queued"


def test_a_parameter_outside_the_space_may_be_queued_with_a_part_of_it():
    study = optuna.create_study(sampler=ArchitectureSampler(LATTICE, seed=0))
    study.enqueue_trial({"stride_01": 1.0, "lr": 0.5})
    trial = study.ask()
    architecture = suggest(trial, LATTICE)
    assert LATTICE.violation(architecture) is None
    assert (trial.params["stride_01"], trial.suggest_float("lr", 0, 1)) == (1.0, 0.5)


@pytest.mark.parametrize("fixed", [{"stride_01": 0.5}, None])
def test_a_queued_architecture_outside_the_set_is_left_to_the_objective(
    fixed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    study = new_study()
    params = fixed or SPACE.encode(Architecture((0.5,) * 7, (4, 4, 4, 4, 8)))
    study.enqueue_trial(params)
    trial = study.ask(DISTRIBUTIONS)
    assert trial.params.items() >= params.items()
    (said,) = caplog.messages
    assert said.startswith(
        "what is queued as trial 0 is not feasible, and never a parent: block 1 "
    )
    study.tell(trial, state=TrialState.FAIL)
    study.optimize(objective, n_trials=10)
    assert len(caplog.messages) == 1
    assert all(LATTICE.violation(architecture(t)) is None for t in study.trials[1:])


def test_a_queued_value_that_no_parameter_has_is_refused_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = new_study()
    study.enqueue_trial(SPACE.encode(LATTICE.at(5)) | {"stride_03": 3.0})
    with pytest.raises(InvalidArchitectureError, match=r"^stride_03 is queued with a wrong value"):
        study.optimize(objective, n_trials=1)
    assert "trial 0 is not feasible, and never a parent: stride_03 must be" in caplog.text


def test_what_lies_outside_is_refused_by_the_objective() -> None:
    study = new_study()
    study.enqueue_trial(SPACE.encode(Architecture((1, 1, 1, 1, 1, 1, 2), (4, 4, 4, 4, 8))))
    with pytest.raises(InvalidArchitectureError, match=r"^1 1 .* 8: .* outside the window"):
        study.optimize(objective, n_trials=1)


def test_a_retry_is_taken_over_by_the_process_that_runs_it() -> None:
    study = new_study()
    trial = study.ask()
    sample(trial)
    plan = read_plan(study.trials[0])
    assert plan is not None
    study.tell(trial, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(study, study.trials[0])
    study.ask()
    again = read_plan(study.trials[1])
    assert again is not None
    assert (again.worker.trial, again.slot, again.params) == (1, 0, plan.params)


# Trials from elsewhere


@pytest.fixture
def old() -> Study:
    """Of the same space; its proposals went on for many generations, some were repeated."""
    study = new_study(seed=9, population_size=4)
    for _ in range(3):
        trial = study.ask(DISTRIBUTIONS)
        study.tell(trial, state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback(max_retry=2)(study, study.trials[-1])
        study.optimize(objective, n_trials=20)
    return study


def complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def bare(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The same without attributes."""
    every = ({"params": t.params, "value": t.value} for t in trials)
    return [create_trial(distributions=DISTRIBUTIONS, **known) for known in every]


def test_copies_of_repeated_trials_break_nothing(old: Study) -> None:
    study = new_study()
    study.add_trials(complete(old)[::-1])
    study.optimize(objective, n_trials=10)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 70
    assert [t.user_attrs[GENERATION] for t in study.trials[60:]] == [7] * 4 + [8] * 6


@pytest.mark.parametrize("chosen", [slice(None), slice(None, None, -1), slice(40, None)])
def test_added_trials_are_as_good_as_parents_as_those_without_attributes(
    old: Study, chosen: slice
) -> None:
    known, unknown = new_study(), new_study()
    trials = [t for t in complete(old) if "retry_history" not in t.system_attrs][chosen]
    known.add_trials(trials)
    unknown.add_trials(bare(trials))
    n = len(trials)
    for study in (known, unknown):
        study.optimize(objective, n_trials=20)
    found = ([(t.params, t.user_attrs) for t in s.trials[n:]] for s in (known, unknown))
    assert next(found) == next(found)
    assert {known.sampler.get_trial_generation(known, t) for t in known.trials[:n]} == {0}
    best = sorted(known.trials[:n], key=lambda t: -t.value)[:8]
    assert known.sampler.select_parent(known, 1) == best


def test_a_trial_that_is_added_to_its_own_study_was_not_proposed_again() -> None:
    study = new_study()
    study.optimize(objective, n_trials=20)
    study.add_trial(study.trials[19])
    generations = [study.sampler.get_trial_generation(study, t) for t in study.trials[19:]]
    assert generations == [2, 0]


def test_a_copied_study_goes_on_as_the_original() -> None:
    whole, storage = new_study(), optuna.storages.InMemoryStorage()
    whole.optimize(objective, n_trials=20)
    optuna.copy_study(from_study_name="study", from_storage=whole._storage, to_storage=storage)
    copy = new_study(storage=storage)
    for study in (whole, copy):
        study.optimize(objective, n_trials=15)
    assert proposals(copy) == proposals(whole)
    generations = [copy.sampler.get_trial_generation(copy, t) for t in copy.trials]
    assert generations == [t.user_attrs[GENERATION] for t in copy.trials]


def test_processes_that_begin_a_study_at_once_all_propose_in_it() -> None:
    study = new_study()
    study.optimize(objective, n_trials=20)
    plan = study.sampler.ledger.read(study).records[19].plan
    for made_in in ("elsewhere", "another"):
        other = replace(plan, study=made_in, worker=Worker.current(len(study.trials)))
        attrs = {PLAN: other.to_json()}
        params, distributions = study.trials[19].params, DISTRIBUTIONS
        study.add_trial(
            create_trial(value=1.0, params=params, distributions=distributions, system_attrs=attrs)
        )
    # Another process had seen none, too, when ours gave the study its id.
    study._storage.set_study_system_attr(study._study_id, f"{STUDY_ID}another", True)
    assert [study.sampler.get_trial_generation(study, t) for t in study.trials[19:]] == [2, 0, 2]


def test_an_added_trial_that_waits_is_evaluated_as_it_is(old: Study) -> None:
    trial = old.ask(DISTRIBUTIONS)
    old.tell(trial, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(old, old.trials[-1])
    study = new_study()
    study.add_trial(old.trials[-1])
    study.optimize(objective, n_trials=1)
    plan = read_plan(study.trials[0])
    assert plan is not None
    assert (plan.origin, plan.generation, plan.slot) == ("queued", 0, 0)
    assert study.trials[0].params == trial.params


def test_what_holds_no_architecture_is_left_out_and_named_once() -> None:
    study = new_study()
    study.optimize(objective, n_trials=2)
    floats = {"lr": FloatDistribution(0, 1), "depth": IntDistribution(1, 9)}
    outside = Architecture((1, 1, 1, 1, 1, 1, 2), (4, 4, 4, 4, 8))
    broken = Architecture((0.5,) * 7, (4, 4, 4, 4, 8))
    for added in (outside, broken):
        study.add_trial(
            create_trial(params=SPACE.encode(added), distributions=DISTRIBUTIONS, value=99.0)
        )
    for _ in range(2):
        study.add_trial(
            create_trial(params={"lr": 0.5, "depth": 3}, distributions=floats, value=99.0)
        )
    study.add_trial(create_trial(value=99.0, system_attrs={PLAN: {"params": {}}}))
    with pytest.warns(UserWarning, match="leaves out") as warned:
        study.optimize(objective, n_trials=20)
    (said,) = {str(w.message) for w in warned}
    assert len(warned) == 1
    assert said.startswith("study study leaves out 5 of its complete trials, which hold no arch")
    assert said.endswith(
        "that it may evaluate: trial 4-5 (no stride_01, stride_02, stride_03 and 9 more, but "
        "depth, lr); trial 6 (no stride_01, stride_02, stride_03 and 9 more); trial 2 (0.191488 "
        "GFLOPs lie outside the window 0.097098946 GFLOPs to 0.099060541 GFLOPs); trial 3 (other "
        "reasons)"
    )
    assert {t.number for t in study.sampler.select_parent(study, 9)} & {2, 3, 4, 5, 6} == set()


# Late trials


def test_a_trial_that_finishes_late_is_a_parent_from_then_on() -> None:
    study = new_study()
    first = [study.ask(DISTRIBUTIONS) for _ in range(8)]
    for trial in first[:7]:
        study.tell(trial, 0.0)
    study.optimize(objective, n_trials=8)  # generation 1, while the last of generation 0 runs
    assert 7 not in {p for t in study.trials[8:16] for p in read_plan(t).parents}
    study.tell(first[7], 100.0)
    assert study.sampler.select_parent(study, 2)[0].number == 7
    assert study.sampler.select_parent(study, 1)[0].number == 7
    study.optimize(objective, n_trials=24)
    assert 7 in {p for t in study.trials[16:] for p in read_plan(t).parents}


def test_finished_trials_behind_one_that_runs_are_parents() -> None:
    study = new_study()
    hanging = study.ask(DISTRIBUTIONS)
    study.optimize(objective, n_trials=23)
    assert study.trials[hanging.number].state == TrialState.RUNNING
    assert len(study.sampler.select_parent(study, 1)) == 7
    planned = [read_plan(t) for t in study.trials[8:]]
    assert {plan.origin for plan in planned} <= {"random", "substitute", *OPERATORS}
    assert max(max(plan.parents, default=0) for plan in planned) >= 8


# Settings and errors


def test_fixing_a_part_of_the_architecture_is_refused_with_the_way_to_do_it() -> None:
    study = new_study()
    study.sampler = optuna.samplers.PartialFixedSampler({"stride_01": 2.0}, study.sampler)
    with pytest.raises(ValueError, match=r"^all .* stride_01 cannot be left out.*enqueue_trial"):
        study.optimize(objective, n_trials=1)
    study.sampler = study.sampler._base_sampler
    study.enqueue_trial({"stride_01": 2.0, "feature_stride_5": 32})
    study.optimize(objective, n_trials=2)
    found = architecture(study.trials[1])
    assert (found.strides[0], found.feature_strides[4]) == (2.0, 32)
    assert LATTICE.violation(found) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population_size": 0}, "population_size must be a whole number of at least 1, got 0"),
        ({"n_children": -1}, "n_children .* at least 0, got -1"),
        ({"n_random": 1.5}, "n_random must be a whole number of at least 0, got 1.5"),
        ({"n_reevaluated": -1}, "n_reevaluated .* at least 0, got -1"),
        ({"n_children": 0, "n_random": 0}, r"n_children \+ n_random .* at least 1, got 0"),
        ({"max_attempts": 0}, "max_attempts .* at least 1, got 0"),
        ({"gene_probability": math.nan}, r"gene_probability must be a number in 0\.\.1, got nan"),
        ({"gene_probability": "x"}, r"gene_probability must be a number in 0\.\.1, got 'x'"),
        ({"proposer": "magic"}, "proposer must be one of algorithm1, recombination, got 'magic'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArchitectureSampler(LATTICE, **settings)


class Broken(Lattice):
    def sample(self, rng: np.random.Generator) -> Architecture:
        raise OSError("no entropy")


def test_an_error_while_planning_leaves_no_running_trial() -> None:
    broken = Broken(SPACE, COST, window=LATTICE.window)
    study = optuna.create_study(sampler=ArchitectureSampler(broken, **SMALL))
    for queued in (False, True):
        if queued:  # its planning is no part of the objective
            study.enqueue_trial({"stride_01": 0.5})
        with pytest.raises(OSError, match="no entropy"):
            study.optimize(objective, n_trials=1)
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 2
    assert recover_lost_trials(study) == [1]  # it will be planned anew


def test_a_new_trial_stores_nothing_before_its_first_suggestion() -> None:
    study = new_study()
    trial = study.ask()  # `Study.optimize` begins its heartbeat after that
    (before,) = study.trials
    assert (before.system_attrs, before.user_attrs, before.params) == ({}, {}, {})
    suggest(trial, LATTICE)
    assert read_plan(study.trials[0]).params == study.trials[0].params
