"""Architectures that are queued by name, notation or value."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState

from msnas_optuna import PUBLISHED, ArchitectureSampler, queue_architectures
from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import (
    ORIGIN,
    Sightings,
    finished_slots,
    n_slots,
    recover_lost_trials,
    withdraw,
)

SPACE, COST = MSNASSpace(13), EncoderCost.from_preset("r18")
TARGET = PRESETS["r18"].target_gflops * 1e9
LATTICE = Lattice(SPACE, COST, window=(math.ceil(0.99 * TARGET), math.floor(1.01 * TARGET)))
INSIDE = [name for name in PUBLISHED if name.startswith("r18-")
          and LATTICE.violation(PUBLISHED[name].architecture) is None]  # fmt: skip


def resolve(text: str) -> Architecture:
    return METHODS["msnas"].resolve(text, SPACE)


def objective(trial: optuna.Trial) -> float:
    return float(sum(trial._suggest(n, d) for n, d in SPACE.distributions.items()))


def new_study() -> optuna.Study:
    sampler = ArchitectureSampler(LATTICE, population_size=6, n_children=4, n_random=1, seed=0)
    return optuna.create_study(direction="maximize", sampler=sampler)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("r18")])
def test_names_and_texts_mean_the_same(name: str) -> None:
    architecture = PUBLISHED[name].architecture
    assert METHODS["msnas"].resolve(name, SPACE) == architecture
    assert METHODS["msnas"].resolve(str(architecture), SPACE) == architecture


@pytest.mark.parametrize("n_blocks", range(3, 33))
def test_the_hand_made_path_has_a_name_in_every_space(n_blocks: int) -> None:
    space = MSNASSpace(n_blocks)
    assert METHODS["msnas"].resolve("fpn-like", space) == space.fpn_like()


def test_queued_architectures_come_first_and_join_the_population() -> None:
    study = new_study()
    literal = str(LATTICE.at(3))
    given = [*INSIDE, literal, LATTICE.at(4), LATTICE.at(3)]
    assert (
        queue_architectures(study, SPACE, given, resolve=resolve, feasible=LATTICE)
        == len(INSIDE) + 2
    )
    study.optimize(objective, n_trials=30)
    found = [SPACE.decode(t.params) for t in study.trials]
    assert found[: len(INSIDE) + 2] == [
        *(PUBLISHED[name].architecture for name in INSIDE), LATTICE.at(3), LATTICE.at(4)
    ]  # fmt: skip
    assert len(set(found)) == 30
    origins = [t.user_attrs[ORIGIN] for t in study.trials]
    assert origins.count("queued") == len(INSIDE) + 2
    parents = {t.number for t in study.sampler.select_parent(study, 1)}
    assert parents & set(range(len(INSIDE) + 2))


def test_what_is_queued_in_part_is_filled_with_something_new_while_there_is() -> None:
    space = MSNASSpace(7)
    everything = Lattice(space)
    encoder = dict(list(space.encode(space.fpn_like()).items())[:7])
    n = sum(a.strides == space.fpn_like().strides for a in everything)
    sampler = ArchitectureSampler(everything, max_attempts=1, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(n + 1):  # once more than there are
        study.enqueue_trial(encoder)
    study.optimize(
        lambda trial: len([trial._suggest(*item) for item in space.distributions.items()]),
        n_trials=n + 1,
    )
    assert n > 20
    assert len({space.decode(t.params) for t in study.trials}) == n


def test_a_resumed_study_with_seeds_proposes_what_an_uninterrupted_one_does() -> None:
    def run(study: optuna.Study, n_trials: int) -> None:
        queue_architectures(study, SPACE, [*INSIDE, LATTICE.at(3)], resolve=resolve)
        study.optimize(objective, n_trials=n_trials)

    def reevaluating(storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
        sampler = ArchitectureSampler(
            LATTICE, population_size=6, n_children=4, n_random=1, n_reevaluated=2, seed=0
        )
        return optuna.create_study(
            direction="maximize", sampler=sampler, storage=storage,
            study_name="study", load_if_exists=True,
        )  # fmt: skip

    whole, storage = reevaluating(), optuna.storages.InMemoryStorage()
    run(whole, 32)
    for n_trials in (1, 7, 4, 20):
        run(reevaluating(storage), n_trials)
    resumed = reevaluating(storage)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
    assert "reevaluated" in [t.user_attrs[ORIGIN] for t in whole.trials]


def test_what_the_study_holds_is_not_queued_again() -> None:
    study = new_study()
    assert queue_architectures(study, SPACE, [LATTICE.at(0), LATTICE.at(1)]) == 2
    assert queue_architectures(study, SPACE, [LATTICE.at(1), LATTICE.at(2)]) == 1
    running, waiting = study.ask(), study.ask()
    study.tell(running, state=TrialState.FAIL)
    every = [LATTICE.at(i) for i in range(3)]
    assert queue_architectures(study, SPACE, every) == 0
    assert queue_architectures(study, SPACE, every, retry_failed=True) == 1
    assert waiting.number == 1


def test_what_was_withdrawn_may_be_queued_again() -> None:
    study = new_study()
    queue_architectures(study, SPACE, [LATTICE.at(0)])
    withdraw(study, study.trials)
    assert queue_architectures(study, SPACE, [LATTICE.at(0)]) == 1
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_of_two_workers_the_later_one_withdraws_its_doubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = new_study()
    add_trial = study.add_trial

    def race(trial: optuna.trial.FrozenTrial) -> None:
        monkeypatch.setattr(study, "add_trial", add_trial)
        add_trial(trial)  # the other worker's
        add_trial(trial)

    monkeypatch.setattr(study, "add_trial", race)
    queue_architectures(study, SPACE, [LATTICE.at(0)])
    assert [t.state for t in study.trials] == [TrialState.WAITING, TrialState.FAIL]
    assert n_slots(study) == 1  # the double takes none
    assert finished_slots(study) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "r18-9",
            "no architecture is called 'r18-9'; give one of r18-1, .* fpn-like, or a notation",
        ),
        ("r34-1", "'r34-1' is none of the study's: the space has 13 blocks, .* 21 strides"),
        ("1 2 | 8", r"'1 2 \| 8' is none of the study's: the space has 13 blocks"),
        ("1 2 | a", "an architecture reads"),
        (
            "1 1 1 1 1 1 1 1 1 1 1 1 2 | 4 4 4 4 8",
            r"'1 1 .*' cannot be queued: .* GFLOPs lie outside the window 143.*146.* GFLOPs",
        ),
    ],
)
def test_what_the_study_may_not_evaluate_is_refused_by_name(name: str, message: str) -> None:
    study = new_study()
    with pytest.raises(InvalidArchitectureError, match=message):
        queue_architectures(study, SPACE, [LATTICE.at(0), name], resolve=resolve, feasible=LATTICE)
    assert not study.trials


def test_a_queued_trial_whose_process_died_before_its_plan_is_evaluated_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, architecture = new_study(), PUBLISHED[INSIDE[0]].architecture
    queue_architectures(study, SPACE, [architecture])
    (waiting,) = study.get_trials(deepcopy=False)
    study._storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING)
    sightings = Sightings()
    assert recover_lost_trials(study, sightings) == []  # it may be alive and about to claim it
    monkeypatch.setattr("msnas_optuna.storage.recovery.UNOWNED_GRACE", 0)
    assert recover_lost_trials(study, sightings) == [0]
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert SPACE.decode(study.get_trials()[1].params) == architecture


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("fpn-like", "must be a list of names or values, got 'fpn-like' alone"),
     ([3], "3 cannot be queued: it is neither an architecture nor a text that")],
)  # fmt: skip
def test_what_is_no_list_of_architectures_is_refused(wrong, message) -> None:
    with pytest.raises(InvalidArchitectureError, match=message):
        queue_architectures(new_study(), SPACE, wrong, resolve=resolve)


def test_names_need_somebody_who_reads_them() -> None:
    with pytest.raises(InvalidArchitectureError, match=r"'r18-1' cannot be queued: .* `resolve`"):
        queue_architectures(new_study(), SPACE, ["r18-1"])
