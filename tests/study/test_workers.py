"""The loop that every worker runs: exact counts, claims, failures, a storage that hiccups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import inf
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.methods.msnas.tabular import TabularObjective, load_table
from msnas_optuna.samplers import ArchitectureSampler, queue_architectures
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import (
    OWNER,
    QUEUED,
    WITHDRAWN,
    Sightings,
    StorageError,
    StorageFailures,
    Worker,
    claim_trial,
    finished_slots,
    holders,
    is_withdrawn,
    n_slots,
    open_storage,
    open_study,
    outstanding_trials,
    owner_of,
    read_plan,
    recover_lost_trials,
    slots_of,
    would_notice_death,
)
from msnas_optuna.storage.optuna_private import ProxyClient, database_of, trial_id
from msnas_optuna.storage.proxy import _channel_options
from msnas_optuna.study.workers import evaluate_trials

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.97 * TARGET), int(1.03 * TARGET)))


def cheap_study(url: str) -> Study:
    sampler = ArchitectureSampler(LATTICE, population_size=6, n_children=4, n_random=1, seed=0)
    return open_study(
        open_storage(url), name="s", directions=["maximize"], sampler=sampler, config={"seed": 0}
    )


def cheap(trial: optuna.Trial) -> float:
    values = [trial._suggest(name, d) for name, d in SPACE.distributions.items()]
    return float(sum(i * v for i, v in enumerate(values)))


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"{request.param}:///{tmp_path}/study.db"


def counted(study: Study) -> list[FrozenTrial]:
    return [t for t in study.trials if not is_withdrawn(t)]


def test_one_worker_does_what_optuna_s_loop_does(tmp_path: Path) -> None:
    ours, theirs = (cheap_study(f"sqlite:///{tmp_path}/{name}.db") for name in "ab")
    evaluate_trials(ours, cheap, wanted=20)
    theirs.optimize(cheap, n_trials=20)
    assert [(t.params, t.values, t.user_attrs) for t in ours.trials] == [
        (t.params, t.values, t.user_attrs) for t in theirs.trials
    ]


RACER = """
import sys, time
sys.path[:0] = ['tests/study', '.']
from test_workers import cheap, cheap_study, evaluate_trials
study = cheap_study(sys.argv[1])
time.sleep(max(0, float(sys.argv[2]) - time.time()))
evaluate_trials(study, cheap, wanted=int(sys.argv[3]))
"""


def race(url: str, wanted: int, *, workers: int) -> None:
    start = str(time.time() + 6)
    command = [sys.executable, "-c", RACER, url, start, str(wanted)]
    racers = [subprocess.Popen(command) for _ in range(workers)]
    assert [racer.wait(timeout=240) for racer in racers] == [0] * workers


@pytest.mark.slow
def test_workers_together_make_exactly_the_wanted_trials(url: str) -> None:
    study = cheap_study(url)
    for wanted in (3, 13):  # the second run goes on where the first has stopped
        race(url, wanted, workers=4)
        trials = counted(study)
        assert [t.state for t in trials] == [TrialState.COMPLETE] * wanted
        assert sorted(slots_of(study.trials).values()) == list(range(wanted))
        plans = [read_plan(t) for t in trials]
        assert sorted(p.slot for p in plans if p is not None) == list(range(wanted))
        assert len({str(t.params) for t in trials}) == wanted


def test_a_surplus_trial_is_given_up_and_takes_no_slot(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = cheap_study(url), cheap_study(url)
    evaluate_trials(study, cheap, wanted=3)
    create = study._storage.create_new_trial

    def second(*arguments, **options) -> int:  # the other worker creates one in between
        monkeypatch.setattr(study._storage, "create_new_trial", create)
        assert claim_trial(other, wanted=4) is not None
        return create(*arguments, **options)

    monkeypatch.setattr(study._storage, "create_new_trial", second)
    assert claim_trial(study, wanted=4) is None
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3 + ["RUNNING", "FAIL"]
    assert is_withdrawn(study.trials[4])
    assert (n_slots(study), finished_slots(study)) == (4, 3)
    assert recover_lost_trials(study) == []
    assert claim_trial(study, wanted=5) is not None
    assert slots_of(study.trials)[5] == 4


def test_a_queued_trial_beyond_the_wanted_ones_waits(url: str) -> None:
    study = cheap_study(url)
    queue_architectures(study, SPACE, [LATTICE.at(i) for i in range(3)])
    evaluate_trials(study, cheap, wanted=2)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "WAITING"]
    evaluate_trials(study, cheap, wanted=9, propose=False)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3


def test_an_architecture_queued_twice_is_evaluated_once(url: str) -> None:
    study = cheap_study(url)
    for _ in range(2):
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=SPACE.encode(LATTICE.at(0)),
                distributions=SPACE.distributions,
                system_attrs={QUEUED: True},
            )
        )
    evaluate_trials(study, cheap, wanted=4)
    trials = counted(study)
    assert len(study.trials) == 5
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert len({str(t.params) for t in trials}) == 4


def test_the_owner_is_known_from_the_first_moment(url: str) -> None:
    study = cheap_study(url)
    assert claim_trial(study, wanted=1) is not None
    (trial,) = study.trials
    assert read_plan(trial) is None
    assert owner_of(trial) == Worker.current()


KILLED = """
import os, signal, sys
sys.path[:0] = ['tests/study', '.']
import msnas_optuna.storage.recovery as recovery
from test_workers import cheap_study, recover_lost_trials

def kill(study, trial):
    os.kill(os.getpid(), signal.SIGKILL)

recovery.retry = kill
study = cheap_study(sys.argv[1])
recover_lost_trials(study)
"""


@pytest.mark.slow
def test_a_kill_between_the_failure_and_the_repetition_loses_no_slot(url: str) -> None:
    study = cheap_study(url)
    claim = RACER[: RACER.index("evaluate_trials(")] + "claim_trial(study, wanted=1)"
    claim = claim.replace("evaluate_trials", "claim_trial")
    claimed = subprocess.run([sys.executable, "-c", claim, url, "0"])
    assert claimed.returncode == 0
    assert [t.state.name for t in study.trials] == ["RUNNING"]
    assert subprocess.run([sys.executable, "-c", KILLED, url]).returncode == -9
    assert [t.state.name for t in study.trials] == ["FAIL"]
    assert finished_slots(study) == 0
    evaluate_trials(study, cheap, wanted=2)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert sorted(slots_of(study.trials).values()) == [0, 0, 1]


def test_two_repetitions_of_one_trial_end_as_one(url: str) -> None:
    study = cheap_study(url)
    study.add_trial(create_trial(state=TrialState.FAIL))
    for _ in range(2):
        study.add_trial(
            create_trial(state=TrialState.WAITING, system_attrs={"retry_history": [0]})
        )
    evaluate_trials(study, cheap, wanted=2)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]


def test_copies_of_another_study_s_repeated_trials_are_trials_like_others(
    url: str, tmp_path: Path
) -> None:
    old = cheap_study(f"journal:///{tmp_path}/old.journal")
    for wanted in (1, 2, 8):
        trial = old.ask(SPACE.distributions)
        old.tell(trial, state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(old, old.trials[-1])
        evaluate_trials(old, cheap, wanted=wanted)
    study = cheap_study(url)
    study.add_trials(old.get_trials(states=(TrialState.COMPLETE,))[::-1])
    assert finished_slots(study) == 8
    evaluate_trials(study, cheap, wanted=17)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 17
    assert list(slots_of(study.trials).values()) == list(range(17))


def test_what_fails_an_architecture_lets_the_study_go_on(url: str) -> None:
    study = cheap_study(url)

    def sometimes(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise ZeroDivisionError("one over nothing")
        if trial.number == 2:
            raise optuna.TrialPruned
        return float("nan") if trial.number == 3 else cheap(trial)

    with pytest.warns(UserWarning, match=r"trial 1 failed: one over|trial 3 has no result"):
        evaluate_trials(study, sometimes, wanted=5, failures=(ZeroDivisionError,))
    assert [t.state.name for t in study.trials] == (
        ["COMPLETE", "FAIL", "PRUNED", "FAIL", "COMPLETE"]
    )
    assert study.trials[1].user_attrs["error"] == "one over nothing"
    with pytest.raises(ZeroDivisionError):
        evaluate_trials(study, lambda trial: 1 / 0, wanted=6)
    evaluate_trials(study, cheap, wanted=6)  # repeats it
    assert [t.state.name for t in study.trials[5:]] == ["FAIL", "COMPLETE"]


def test_a_storage_that_fails_for_a_moment_loses_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.failures.POLL_SECONDS", 0)
    study = cheap_study(url)
    finish, calls = study._storage.set_trial_state_values, []

    def fails_once(*arguments, **options) -> bool:
        calls.append(arguments)
        if len(calls) == 2:
            raise StorageInternalError("gone")
        return finish(*arguments, **options)

    monkeypatch.setattr(study._storage, "set_trial_state_values", fails_once)
    evaluate_trials(study, cheap, wanted=3)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 3

    def fails(*_, **__) -> int:
        raise StorageInternalError("gone for good")

    monkeypatch.setattr(study._storage, "create_new_trial", fails)
    with pytest.raises(StorageError, match=r"failed 5 times in a row \(gone for good\).*continu"):
        evaluate_trials(study, cheap, wanted=4)


def test_the_last_trial_that_lost_its_storage_is_waited_for_and_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.failures.POLL_SECONDS", 0)
    monkeypatch.setattr("msnas_optuna.study.workers.POLL_SECONDS", 0.05)
    monkeypatch.setattr("msnas_optuna.storage.recovery._HANDOVER_SECONDS", (0.2, 0.4))
    study, failed = cheap_study(url), []

    def fails_at_the_last(trial: optuna.Trial) -> float:
        value = cheap(trial)
        if trial.number == 2 and not failed:
            failed.append(trial)
            raise StorageInternalError("gone")
        return value

    evaluate_trials(study, fails_at_the_last, wanted=3)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[3].params == study.trials[2].params != {}


def test_a_trial_that_could_not_be_given_back_at_once_is_given_back_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.failures.POLL_SECONDS", 0)
    monkeypatch.setattr("msnas_optuna.study.workers.POLL_SECONDS", 0.05)
    monkeypatch.setattr("msnas_optuna.storage.recovery._HANDOVER_SECONDS", (0.2, 0.4))
    study, refusals = cheap_study(url), []
    write = study._storage.set_trial_system_attr

    def written(*arguments) -> None:
        if refusals:
            raise StorageInternalError(refusals.pop())
        write(*arguments)

    def fails_once(trial: optuna.Trial) -> float:
        if trial.number == 2:  # so do the two attempts to mark the trial
            refusals[:] = ["gone", "gone"]
            raise StorageInternalError("gone")
        return cheap(trial)

    monkeypatch.setattr(study._storage, "set_trial_system_attr", written)
    evaluate_trials(study, fails_once, wanted=3, patience=2)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[3].params == read_plan(study.trials[2]).params


def test_a_surplus_trial_whose_end_was_not_stored_is_nobody_s(url: str) -> None:
    study = cheap_study(url)
    for number in range(2):  # of a worker that dies, and of this one
        owner = replace(Worker.current(), started="0") if number == 0 else Worker.current()
        attrs = {OWNER: asdict(owner), WITHDRAWN: number}
        study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=attrs))
    evaluate_trials(study, cheap, wanted=2, patience=inf)
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert outstanding_trials(study) == []


def test_a_proxy_that_stays_away_is_given_up_in_one_line(
    unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.failures.POLL_SECONDS", 0)
    storage = ProxyClient(host="127.0.0.1", port=unused_port, options=_channel_options(patience=2))
    failures = StorageFailures()

    def work() -> None:
        while True:
            try:
                storage.create_new_study([StudyDirection.MAXIMIZE])
            except Exception as error:
                failures.wait(error)

    waited = "Deadline Exceeded"  # a call that does not wait is refused
    message = rf"^the storage has failed 5 times in a row \({waited}\); finished .*continues$"
    with pytest.raises(StorageError, match=message):
        work()


def test_a_trial_that_other_workers_took_is_dropped(url: str) -> None:
    study = cheap_study(url)

    def taken(trial: optuna.Trial) -> float:
        if trial.number == 0:
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return cheap(trial) if trial.number else 0.0

    with pytest.warns(UserWarning, match="trial 0 has no result"):
        evaluate_trials(study, taken, wanted=2)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]


def test_a_worker_whose_trial_others_took_before_it_wrote_goes_on(url: str) -> None:
    study = cheap_study(url)

    def taken(trial: optuna.Trial) -> float:
        value = cheap(trial)
        if trial.number != 2:
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        if trial.number == 1:
            raise ZeroDivisionError("one over nothing")
        if trial.number == 3:
            raise OSError("what a person must know")
        trial.set_user_attr("gflops", 1.0)
        return value

    with pytest.warns(UserWarning, match=r"trial 0 has no result|trial 1 failed: one over"):
        evaluate_trials(study, taken, wanted=3, failures=(ZeroDivisionError,))
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "COMPLETE"]
    with pytest.raises(OSError, match="what a person must know"):
        evaluate_trials(study, taken, wanted=4)


def test_a_worker_writes_heartbeats_from_the_start_of_an_evaluation_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, beats = cheap_study(f"sqlite:///{tmp_path}/study.db"), []
    database = database_of(study._storage)
    monkeypatch.setattr(database, "record_heartbeat", beats.append)
    monkeypatch.setattr(database, "get_heartbeat_interval", lambda: 0.02)

    def objective(trial: optuna.Trial) -> float:
        assert beats
        beats.clear()
        while len(beats) < 2:  # those of a thread
            time.sleep(0.01)
        assert set(beats) == {trial_id(trial)}
        return cheap(trial)

    evaluate_trials(study, objective, wanted=2)
    beats.clear()
    time.sleep(0.1)
    assert beats == []


ELSEWHERE = """
import os, signal, socket, sys
socket.gethostname = lambda: "elsewhere"
sys.path[:0] = ['tests/study', '.']
from test_workers import cheap_study, claim_trial
if sys.argv[2] == "proxy":
    import msnas_optuna.storage.claims as claims
    claims.keeps_heartbeats = lambda study: False
study = cheap_study(sys.argv[1])
trial_id = claim_trial(study, wanted=1)
if sys.argv[2] == "beats":
    study._storage.record_heartbeat(trial_id)
os.kill(os.getpid(), signal.SIGKILL)
"""


def claimed_elsewhere(url: str, how: str) -> Study:
    """A study with a trial of a process that was killed on another machine."""
    command = [sys.executable, "-c", ELSEWHERE, url, how]
    assert subprocess.run(command).returncode == -9
    study = cheap_study(url)
    assert [t.state.name for t in study.trials] == ["RUNNING"]
    return study


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_a_worker_that_died_elsewhere_before_its_first_heartbeat_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.study.workers.POLL_SECONDS", 0.05)
    monkeypatch.setattr("msnas_optuna.storage.recovery.GRACE_PERIOD", 0.3)
    study = claimed_elsewhere(url, "silent")
    start = time.monotonic()
    evaluate_trials(study, cheap, wanted=1, patience=inf)
    assert time.monotonic() - start > 0.3
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].system_attrs["retry_history"] == [0]


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_a_worker_of_this_host_lives_although_the_machine_has_slept(url: str) -> None:
    study = cheap_study(url)
    trial_id = claim_trial(study, wanted=1)
    study._storage.record_heartbeat(trial_id)
    with study._storage._backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    assert study._storage._get_stale_trial_ids(study._study_id) == [trial_id]
    assert recover_lost_trials(study) == []
    assert [t.state.name for t in study.trials] == ["RUNNING"]


@pytest.mark.parametrize("how", ["beats", "proxy"])
def test_no_heartbeat_means_death_only_where_one_is_due(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.recovery.GRACE_PERIOD", 0)
    study = claimed_elsewhere(f"sqlite:///{tmp_path}/study.db", how)
    sightings = Sightings()
    for _ in range(3):
        assert recover_lost_trials(study, sightings) == []
    assert would_notice_death(study, study.trials[0]) == (how == "beats")
    if how == "proxy":  # nobody could end the wait
        with pytest.warns(UserWarning, match="1 trials are left to other .*`msnas doctor` shows"):
            evaluate_trials(study, cheap, wanted=1, patience=inf)


def test_the_start_of_a_trial_by_another_clock_says_nothing(tmp_path: Path) -> None:
    study = claimed_elsewhere(f"sqlite:///{tmp_path}/study.db", "silent")
    with study._storage._backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET datetime_start = '2020-01-01 00:00:00'")
    assert cheap_study(f"sqlite:///{tmp_path}/study.db").trials[0].datetime_start.year == 2020
    sightings = Sightings()
    for _ in range(3):
        assert recover_lost_trials(study, sightings) == []


CLAIMING = """
import sys
sys.path[:0] = ['tests/study', '.']
from test_workers import cheap_study, claim_trial
print(claim_trial(cheap_study(sys.argv[1]), wanted=1), flush=True)
sys.stdin.readline()
"""


def test_a_worker_waits_for_the_others_or_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.study.workers.POLL_SECONDS", 0.05)
    url = f"journal:///{tmp_path}/s"
    study, command = cheap_study(url), [sys.executable, "-c", CLAIMING, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        claimed = int(other.stdout.readline())
        with pytest.warns(UserWarning, match="1 trials are left to other workers"):
            evaluate_trials(study, cheap, wanted=1, patience=0.2)
        evaluate_trials(study, cheap, wanted=1, wait=False)
        finish = (claimed, TrialState.COMPLETE, [1.0])
        timer = threading.Timer(0.3, study._storage.set_trial_state_values, finish)
        timer.start()
        evaluate_trials(study, cheap, wanted=1)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


def test_it_is_told_at_once_whose_trials_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.study.workers.POLL_SECONDS", 0.05)
    study, told = cheap_study(f"journal:///{tmp_path}/s"), []
    others = [replace(Worker.current(), host="elsewhere", pid=77), None, None, None]
    for owner in others:
        attrs = {} if owner is None else {OWNER: asdict(owner)}
        study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=attrs))

    def report(settled: int, awaited: Sequence[FrozenTrial]) -> None:
        told.append(holders(study, awaited))

    with pytest.warns(UserWarning, match=r"to other workers: trial 0 of s \(process 77 on else"):
        evaluate_trials(study, cheap, wanted=5, patience=0.2, report=report)
    since = study.trials[0].datetime_start.isoformat(" ", "seconds")
    assert told[0] == ""  # it has evaluated one itself
    assert told[1].startswith(
        f"trial 0 of s (process 77 on elsewhere since {since}), trial 1 of s"
    )
    assert told[1].endswith(" and 1 more")


def test_a_trial_without_an_owner_whose_heart_beats_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.recovery.UNOWNED_GRACE", 0)
    study = cheap_study(f"sqlite:///{tmp_path}/study.db")
    beats, silent = study.ask(), study.ask()  # of `Study.optimize`, before the first `suggest`
    study._storage.record_heartbeat(trial_id(beats))
    sightings = Sightings()
    recover_lost_trials(study, sightings)
    assert recover_lost_trials(study, sightings) == [silent.number]


def plain(url: str, killed: int = -1) -> list[float]:
    """A search on a study that Optuna alone has made; it may kill itself in a trial."""
    table = load_table()
    sampler = ArchitectureSampler(
        table.feasible, population_size=5, n_children=5, n_random=1, seed=0
    )
    study = optuna.create_study(
        study_name="plain", storage=url, load_if_exists=True, direction="maximize", sampler=sampler
    )

    def objective(trial: optuna.Trial) -> float:
        value = TabularObjective(table)(trial)
        if trial.number == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    evaluate_trials(study, objective, wanted=12)
    return [trial.value for trial in study.trials if trial.value is not None]


KILLED_IN_TRIAL_7 = """
import sys
sys.path[:0] = ['tests/study', '.']
from test_workers import plain
plain(sys.argv[1], killed=7)
"""


def test_a_study_of_plain_optuna_goes_on_after_kill_9_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/killed.db"
    assert subprocess.run([sys.executable, "-c", KILLED_IN_TRIAL_7, url]).returncode == -9
    resumed = plain(url)
    assert len(resumed) == 12
    assert resumed == plain(f"sqlite:///{tmp_path}/undisturbed.db")
