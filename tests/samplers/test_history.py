"""What is read of trials: slots, populations, fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna import ArchitectureSampler, Lattice, MSNASSpace
from msnas_optuna.samplers.history import Candidate, Ledger, Record, averaged, pareto_front, top
from msnas_optuna.samplers.proposals import Settings
from msnas_optuna.storage import ORIGIN, withdraw

SPACE = MSNASSpace(5)
EVERYTHING = Lattice(SPACE)


def record(number: int, architecture: str, *loss: float) -> Record[str]:
    trial = create_trial(value=0.0)
    trial.number = number
    return Record(trial, number, None, 0, architecture, loss or None)


def candidate(number: int, *loss: float) -> Candidate[str]:
    return Candidate(str(number), loss, (record(number, str(number), *loss),))


def numbers(candidates: Sequence[Candidate[str]]) -> list[int]:
    return [c.number for c in candidates]


def test_generations_of_the_paper() -> None:
    settings = Settings(50, 50, 10, 0, gene_probability=0.1, max_attempts=1)
    slots = {g: [s for s in range(300) if settings.generation(s) == g] for g in range(4)}
    assert {g: len(s) for g, s in slots.items()} == {0: 50, 1: 60, 2: 60, 3: 60}
    assert [s for s in slots[2] if settings.is_random(s)] == slots[2][:10]
    assert all(map(settings.is_random, range(50)))
    assert not any(map(settings.is_reevaluation, range(300)))


def test_measurements_of_one_architecture_are_averaged() -> None:
    records = [record(0, "a", 1, 5), record(1, "b"), record(2, "c", 4, 4), record(3, "a", 2, 9)]
    first, second = averaged(records)
    assert (first.architecture, first.loss, first.number) == ("a", (1.5, 7), 0)
    assert [r.number for r in first.records] == [0, 3]
    assert (second.architecture, second.loss, second.records) == ("c", (4, 4), (records[2],))


def test_earlier_slots_win_ties() -> None:
    given = [candidate(3, 1), candidate(1, 1), candidate(2, 0), candidate(0, 1)]
    assert numbers(top(given, 3)) == [2, 0, 1]


def test_several_objectives_are_ranked_by_fronts_then_by_crowding() -> None:
    front = [candidate(0, 0, 4), candidate(1, 1.9, 1.9), candidate(2, 2, 1.8), candidate(3, 4, 0)]
    dominated = [candidate(4, 5, 5), candidate(5, 2.5, 2.5)]
    best = numbers(top(front + dominated, 5))
    assert set(best[:2]) == {0, 3}  # the ends of the front
    assert set(best[2:4]) == {1, 2}
    assert best[4] == 5
    assert numbers(pareto_front(dominated + front)) == [0, 1, 2, 3]


def test_the_front_is_that_of_brute_force() -> None:
    losses = np.random.default_rng(0).integers(0, 6, size=(40, 3)).tolist()
    given = [candidate(i, *loss) for i, loss in enumerate(losses)]

    def beats(a: list[int], b: list[int]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    best = [i for i, loss in enumerate(losses) if not any(beats(other, loss) for other in losses)]
    assert numbers(pareto_front(given)) == best
    assert set(numbers(top(given, len(best)))) == set(best)


def test_nothing_has_no_best() -> None:
    assert averaged([]) == top([], 3) == pareto_front([]) == []


def test_one_objective_has_its_best_as_front() -> None:
    assert numbers(pareto_front([candidate(0, 2), candidate(1, 1), candidate(2, 1)])) == [1, 2]


def trial(index: int, state: TrialState = TrialState.COMPLETE, **rest: object) -> FrozenTrial:
    return create_trial(
        params=SPACE.encode(EVERYTHING.at(index)),
        distributions=dict(SPACE.distributions),
        state=state,
        **rest,
    )


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial(0, value=3.0))
    study.add_trial(trial(1, TrialState.WAITING))
    study.add_trial(trial(2, TrialState.FAIL))
    study.add_trial(trial(0, value=1.0))
    study.add_trial(trial(3, value=2.5))
    study.add_trial(create_trial(value=9.0))  # of no architecture
    return study


def test_a_ledger_reads_a_study_of_any_sampler(study: optuna.Study) -> None:
    history = Ledger(SPACE).read(study)
    assert [r.slot for r in history.records] == [0, 1, 2, 3, 4, 5]
    assert [r.loss for r in history.records] == [(-3,), None, None, (-1,), (-2.5,), None]
    assert history.settled == {EVERYTHING.at(i) for i in (0, 2, 3)}
    assert history.unfinished == {EVERYTHING.at(1)}
    assert history.n_held == 4
    assert [c.loss for c in history.population(1, size=9)] == [(-2.5,), (-2,)]
    assert history.population(0, size=9) == []


def test_the_trial_that_is_planned_does_not_hold_its_architecture(study: optuna.Study) -> None:
    history = Ledger(SPACE).read(study, planned=1)
    assert not history.holds(EVERYTHING.at(1))
    assert history.holds(EVERYTHING.at(2))
    assert history.repeats(EVERYTHING.at(1)) == {}
    assert history.repeats(EVERYTHING.at(0)) == {0: 0, 3: 0}


def test_a_ledger_that_has_read_before_says_what_a_new_one_does() -> None:
    sampler = ArchitectureSampler(EVERYTHING, population_size=4, n_children=3, seed=0)
    study, ledger = optuna.create_study(sampler=sampler), Ledger(SPACE, EVERYTHING.violation)
    running = study.ask(SPACE.distributions)
    for i in range(20):
        study.tell(study.ask(SPACE.distributions), i % 7)
        if i == 12:
            study.tell(running, -1.0)  # behind it are finished ones
        known, fresh = (x.read(study) for x in (ledger, Ledger(SPACE)))
        assert known.records == fresh.records
        assert (known.settled, known.unfinished) == (fresh.settled, fresh.unfinished)
        for generation in range(5):
            assert known.population(generation, size=4) == fresh.population(generation, size=4)
    assert len({t.user_attrs[ORIGIN] for t in study.trials}) > 2


def test_an_architecture_that_failed_and_waits_again_is_held_once(study: optuna.Study) -> None:
    study.add_trial(trial(2, TrialState.WAITING))
    history = Ledger(SPACE).read(study)
    assert history.n_held == 4


def test_a_withdrawn_trial_has_neither_slot_nor_architecture(study: optuna.Study) -> None:
    withdraw(study, [study.trials[1]])
    study.add_trial(trial(1, value=0.0))
    history = Ledger(SPACE).read(study)
    assert [r.slot for r in history.records if r.number != 1] == [0, 1, 2, 3, 4, 5]
    assert history.records[1].architecture is None
    assert history.n_held == 4


def test_a_ledger_notices_another_study(study: optuna.Study) -> None:
    ledger = Ledger(SPACE)
    ledger.read(study)
    other = optuna.create_study()
    other.add_trial(trial(5, value=0.5))
    history = ledger.read(other)
    assert [c.loss for c in history.population(1, size=9)] == [(0.5,)]
    assert history.n_held == 1
