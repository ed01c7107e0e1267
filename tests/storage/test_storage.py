"""Storages, resuming, and what killed processes leave behind: real files, real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import (
    CONFIG,
    INTERRUPTED,
    MAX_RETRY,
    PLAN,
    Plan,
    Sightings,
    StudyMismatchError,
    TrialRecord,
    Worker,
    finished_slots,
    mark_interrupted,
    open_storage,
    open_study,
    read_plan,
    read_record,
    recover_lost_trials,
    slots_of,
    write_plan,
    write_record,
)
from msnas_optuna.storage.optuna_private import sample

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage"
)
optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.99 * TARGET), int(1.01 * TARGET)))
CONFIG_A = {"seed": 0, "sampler": {"population_size": 4, "n_random": 1}, "space": {"n_blocks": 7}}


def study_in(storage: BaseStorage) -> Study:
    sampler = ArchitectureSampler(LATTICE, population_size=4, n_children=3, n_random=1, seed=0)
    return open_study(storage, name="s", directions=["maximize"], sampler=sampler, config=CONFIG_A)


def objective(trial: optuna.Trial) -> float:
    values = [trial._suggest(name, d) for name, d in SPACE.distributions.items()]
    return float(sum(i * v for i, v in enumerate(values)))


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:///{tmp_path}/new/folder/study.db"


# Storages


def test_sqlite_is_opened_for_several_workers(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/new/study.db")
    assert isinstance(storage, RDBStorage)
    with storage.engine.connect() as connection:
        pragmas = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert pragmas == ["wal", 1, 60_000]
    assert (storage.heartbeat_interval, storage.grace_period) == (60, 120)


OPENER = """
import sys
from msnas_optuna.storage import open_storage
print("ready", flush=True)
sys.stdin.readline()
open_storage(sys.argv[1])
"""


def at_once(code: str, *arguments: str, workers: int) -> list[str]:
    """What processes print that begin at the same moment, when all of them are ready."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(workers)
    ]  # fmt: skip
    assert all(process.stdout.readline() == "ready\n" for process in processes)
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * workers
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_may_create_the_database_at_the_same_moment(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/x/study.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    at_once(OPENER, url, workers=3)


@pytest.mark.parametrize("name", ["journal:///{}/a/study", "{}/a/study.log", "{}/a/study.journal"])
def test_journal_files(name: str, tmp_path: Path) -> None:
    storage = open_storage(name.format(tmp_path))
    assert isinstance(storage, JournalStorage)
    study_in(storage).optimize(objective, n_trials=2)
    assert len(study_in(open_storage(name.format(tmp_path))).trials) == 2


@pytest.mark.parametrize(
    "url",
    [
        "study.db",
        "mysql://user:hunter2@host/db",
        "foo://user:hunter2@host/db?password=hunter2",
        "postgresql://user:hunter2@host:port/db",
        "postgresql//user:hun@ter2@host/db",
        "redis://:hunter2@host",
        "",
    ],
)
def test_other_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"a storage is sqlite:///path\.db") as caught:
        open_storage(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "journal://"])
def test_a_storage_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"needs a file, as in .*:///study.db"):
        open_storage(url)


def test_postgres_without_driver_or_server_shows_no_password() -> None:
    with pytest.raises(Exception, match=r".") as caught:
        open_storage("postgresql+psycopg2://user:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)


# Studies


def test_a_study_is_created_then_resumed(url: str) -> None:
    study = study_in(open_storage(url))
    study.optimize(objective, n_trials=3)
    again = study_in(open_storage(url))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert again.user_attrs[CONFIG] == CONFIG_A
    assert again.metric_names == ["AP"]


def test_another_configuration_is_refused_key_by_key(url: str) -> None:
    study_in(open_storage(url))
    config = {
        "sampler": {"population_size": 50, "n_random": 1},
        "space": {"n_blocks": 7, "block": "basic"},
    }
    with pytest.raises(StudyMismatchError) as caught:
        open_study(
            open_storage(url),
            name="s",
            directions=["minimize"],
            sampler=RandomSampler(),
            config=config,
        )
    assert str(caught.value).splitlines() == [
        "study 's' exists with another configuration:",
        '  directions: ["maximize"] stored, ["minimize"] given',
        "  sampler.population_size: 4 stored, 50 given",
        "  seed: 0 stored, nothing given",
        '  space.block: nothing stored, "basic" given',
        "restore the stored values, or choose another study name",
    ]


def test_a_study_of_another_program_is_refused(url: str) -> None:
    storage = open_storage(url)
    other = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    other.add_trial(create_trial(value=1.0))
    with pytest.raises(StudyMismatchError, match="was not created by msnas"):
        study_in(storage)


def test_a_study_that_is_refused_stays_untouched(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.studies._CREATION_SECONDS", 0.2)
    other = optuna.create_study(storage=open_storage(url), study_name="s", direction="minimize")
    other.set_user_attr("mine", 1)
    with pytest.raises(StudyMismatchError, match=r'directions: ."minimize". stored'):
        study_in(open_storage(url))
    assert other.user_attrs == {"mine": 1}
    assert other._storage.get_study_system_attrs(other._study_id) == {}


def test_tuples_and_lists_are_the_same_configuration(url: str) -> None:
    for size in ((128, 128), [128, 128]):
        open_study(
            open_storage(url),
            name="t",
            directions=["maximize", "minimize"],
            sampler=RandomSampler(),
            config={"size": size},
            metric_names=["AP", "GFLOPs"],
        )
    assert optuna.load_study(study_name="t", storage=open_storage(url)).metric_names == [
        "AP",
        "GFLOPs",
    ]


def test_a_direction_is_checked() -> None:
    with pytest.raises(ValueError, match="'maximize' or 'minimize', got 'up'"):
        open_study(
            optuna.storages.InMemoryStorage(),
            name="s",
            directions=["up"],
            sampler=RandomSampler(),
            config={},
        )


# Plans and records


def test_plan_round_trip() -> None:
    worker = Worker("h", 1, "2", 9)
    plan = Plan({"a": 0.5, "b": 4}, 3, "mutate_encoder", (1, 2), 7, "id", worker)
    stored = json.loads(json.dumps(plan.to_json()))
    assert read_plan(create_trial(value=0.0, system_attrs={PLAN: stored})) == plan
    earlier = {key: value for key, value in stored.items() if key != "study"}
    for other in (earlier, {**stored, "mood": 1}, {**stored, "params": 3}, {"params": {}}, 3, "x"):
        assert read_plan(create_trial(value=0.0, system_attrs={PLAN: other})) is None
    assert read_plan(create_trial(value=0.0)) is None


def test_record_round_trip(url: str) -> None:
    study = study_in(open_storage(url))
    trial = study.ask()
    record = TrialRecord("1 2 | 4 8", {"gflops": 1.5, "ap50": 0.7}, repeat=2)
    assert read_record(study.trials[0]) is None
    write_record(trial, record)
    assert read_record(study.trials[0]) == record


# Trials that a process left behind


KILLED = """
import os, sys, time
sys.path[:0] = ['tests/storage', '.']
from test_storage import objective, open_storage, study_in
study = study_in(open_storage(sys.argv[1]))
study.optimize(objective, n_trials=5)
trial = study.ask()
trial._suggest(*next(iter(__import__('test_storage').SPACE.distributions.items())))
print('ready', flush=True)
time.sleep(60)
"""


def kill_a_worker(url: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    assert recover_lost_trials(study_in(open_storage(url))) == []  # it lives
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()


def test_a_killed_process_changes_no_proposal_and_no_result(url: str, tmp_path: Path) -> None:
    whole = study_in(open_storage(f"journal:///{tmp_path}/whole"))
    whole.optimize(objective, n_trials=16)
    kill_a_worker(url)
    study = study_in(open_storage(url))
    assert [t.state.name for t in study.trials[5:]] == ["RUNNING"]
    assert recover_lost_trials(study) == [5]
    assert [t.state.name for t in study.trials[5:]] == ["FAIL", "WAITING"]
    assert recover_lost_trials(study) == []
    assert finished_slots(study) == 5
    study.optimize(objective, n_trials=11)
    assert finished_slots(study) == 16
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert [t.params for t in complete] == [t.params for t in whole.trials]
    assert [t.user_attrs for t in complete] == [t.user_attrs for t in whole.trials]


def die(study: Study, number: int) -> None:
    """Rewrites the plan as if a process of this host, now dead, had taken the trial."""
    trial = study.trials[number]
    plan = read_plan(trial)
    assert plan is not None
    write_plan(study, trial, replace(plan, worker=replace(plan.worker, started="0")))


def test_the_heartbeat_of_another_worker_repeats_the_same_plan(tmp_path: Path) -> None:
    study = study_in(open_storage(f"sqlite:///{tmp_path}/study.db"))
    trial = study.ask()
    sample(trial)
    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    stale = study._storage.get_heartbeat_stale_trial_callback()  # as Optuna calls it
    stale(study, study._storage.get_trial(trial._trial_id))
    first, second = map(read_plan, study.trials)
    assert first == second is not None
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]


def test_a_process_id_that_was_given_again_does_not_pass_for_the_worker(url: str) -> None:
    study = study_in(open_storage(url))
    sample(study.ask())
    assert recover_lost_trials(study) == []
    die(study, 0)
    assert recover_lost_trials(study) == [0]


def test_a_trial_that_dies_again_and_again_is_given_up(url: str) -> None:
    study = study_in(open_storage(url))
    for number in range(MAX_RETRY + 1):
        sample(study.ask())
        die(study, number)
        assert finished_slots(study) == 0
        assert recover_lost_trials(study) == [number]
    assert [t.state for t in study.trials] == [TrialState.FAIL] * (MAX_RETRY + 1)
    assert finished_slots(study) == 1
    assert recover_lost_trials(study) == []


def test_trials_of_other_hosts_are_left_alone(url: str) -> None:
    study = study_in(open_storage(url))
    sample(study.ask())
    plan = read_plan(study.trials[0])
    assert plan is not None
    elsewhere = replace(plan.worker, host="elsewhere", pid=2**22 + 1, started="0")
    write_plan(study, study.trials[0], replace(plan, worker=elsewhere))
    assert recover_lost_trials(study) == []
    assert study.trials[0].state == TrialState.RUNNING


def test_an_interrupted_trial_is_repeated_however_often(url: str) -> None:
    study = study_in(open_storage(url))

    def interrupted(trial: optuna.Trial) -> float:
        objective(trial)
        mark_interrupted(trial.study, trial)
        raise KeyboardInterrupt

    for number in range(4):
        with pytest.raises(KeyboardInterrupt):
            study.optimize(interrupted, n_trials=1)
        assert finished_slots(study) == 0
        assert recover_lost_trials(study) == [number]
        assert recover_lost_trials(study) == []
    study.optimize(lambda trial: 1 / 0, n_trials=1, catch=ZeroDivisionError)
    assert finished_slots(study) == 1  # the interruptions are past, this failure is final
    assert recover_lost_trials(study) == []
    plans = [read_plan(trial) for trial in study.trials]
    assert len({str(plan.params) for plan in plans if plan is not None}) == 1
    assert [t.system_attrs[INTERRUPTED] for t in study.trials[:4]] == [0, 1, 2, 3]


def test_a_retry_popped_but_not_yet_taken_over_is_not_lost(url: str) -> None:
    study = study_in(open_storage(url))
    sample(study.ask())
    die(study, 0)
    recover_lost_trials(study)
    popped = study.trials[1]  # its plan still names the dead worker
    study._storage.set_trial_state_values(popped._trial_id, state=TrialState.RUNNING)
    assert recover_lost_trials(study) == []
    assert study.trials[1].state == TrialState.RUNNING


def test_a_trial_without_owner_is_repeated_when_it_was_seen_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age says nothing: the clock of the machine that made it may be wrong by hours."""
    study = study_in(open_storage(url))
    for hours in (-1, 0, 1):
        trial = create_trial(state=TrialState.RUNNING)
        trial.datetime_start = datetime.now() + timedelta(hours=hours)
        study.add_trial(trial)
    asked = {"distributions": SPACE.distributions, "params": SPACE.encode(LATTICE.at(0))}
    study.add_trial(create_trial(state=TrialState.RUNNING, **asked))  # `optuna ask`: no plan
    sightings = Sightings()
    assert recover_lost_trials(study, sightings) == []
    monkeypatch.setattr("msnas_optuna.storage.recovery.UNOWNED_GRACE", 0)
    assert recover_lost_trials(study) == []  # another process that has seen nothing yet
    assert recover_lost_trials(study, sightings) == [0, 1, 2]
    assert [t.state.name for t in study.trials] == ["FAIL"] * 3 + ["RUNNING"] + ["WAITING"] * 3
    study.optimize(objective, n_trials=1)
    plan = read_plan(study.trials[4])
    assert plan is not None
    assert plan.slot == 0


def test_a_copy_of_another_study_s_retry_stands_for_no_trial_here(url: str) -> None:
    study = study_in(open_storage(url))
    trial = study.ask(SPACE.distributions)
    mark_interrupted(study, trial)
    study.tell(trial, state=TrialState.FAIL)
    asked = {"distributions": SPACE.distributions, "params": SPACE.encode(LATTICE.at(0))}
    for history in ([0], [7], [0, 7], ["x"], "xy", {}):
        study.add_trial(create_trial(value=1.0, system_attrs={"retry_history": history}, **asked))
    assert finished_slots(study) == 6
    assert recover_lost_trials(study) == [0]
    assert [t.state.name for t in study.trials] == ["FAIL", *["COMPLETE"] * 6, "WAITING"]
    assert list(slots_of(study.trials).values()) == [*range(7), 0]


RECOVERER = """
import sys
sys.path[:0] = ['tests/storage', '.']
from test_storage import open_storage, recover_lost_trials, study_in
study = study_in(open_storage(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
recover_lost_trials(study)
"""


@pytest.mark.slow
def test_several_processes_that_recover_at_once_queue_each_trial_once(url: str) -> None:
    study = study_in(open_storage(url))
    for _ in range(3):
        sample(study.ask())
    for number in range(3):
        die(study, number)
    at_once(RECOVERER, url, workers=4)
    waiting = [t for t in study.trials if t.state == TrialState.WAITING]
    assert sorted(t.system_attrs["retry_history"] for t in waiting) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("settle", "expected"),
    [
        (lambda study, trial: study.tell(trial, 1.0), 1),
        (lambda study, trial: study.tell(trial, state=TrialState.PRUNED), 1),
        (lambda study, trial: study.tell(trial, state=TrialState.FAIL), 1),
        (lambda study, trial: None, 0),
        (lambda study, trial: study.enqueue_trial({"stride_01": 1.0}), 0),
    ],
)
def test_finished_slots(
    settle: Callable[[Study, optuna.Trial], object], expected: int, url: str
) -> None:
    study = study_in(open_storage(url))
    settle(study, study.ask(SPACE.distributions))
    assert finished_slots(study) == expected


KILLED_WHILE_CREATING = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from msnas_optuna.storage import open_storage

seen = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global seen
    seen += 1
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

open_storage(sys.argv[1])
"""


@pytest.mark.parametrize("statement", [2, 26])
def test_a_kill_while_the_tables_are_made_leaves_nothing_half_made(
    tmp_path: Path, statement: int
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    code = [sys.executable, "-c", KILLED_WHILE_CREATING, url, str(statement)]
    assert subprocess.run(code).returncode == -signal.SIGKILL
    open_storage(url)
    with sqlite3.connect(tmp_path / "study.db") as database:
        indexes = {row[1] for row in database.execute("PRAGMA index_list(studies)")}
    assert "ix_studies_study_name" in indexes


def test_a_cursor_that_an_interruption_has_broken_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Cursor:
        def close(self) -> None:
            raise RuntimeError("broken")

    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    engine = storage._backend.engine if hasattr(storage, "_backend") else storage.engine
    with engine.connect() as connection:
        connection._safe_close_cursor(Cursor())
        connection.engine.pool.logger.error("something else")
    assert [record.message for record in caplog.records] == ["something else"]


TAKING = """
import sys
import optuna
from optuna.trial import TrialState
from msnas_optuna.storage import open_storage

storage = open_storage(sys.argv[1])
study = optuna.load_study(study_name="s", storage=storage)
print("ready", flush=True)
sys.stdin.readline()
taken = []
for trial in study.trials:
    if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
        taken.append(trial.number)
print(*taken)
"""


def test_of_several_processes_one_takes_a_waiting_trial(tmp_path: Path) -> None:
    url, n_trials = f"sqlite:///{tmp_path}/study.db", 40
    study = optuna.create_study(study_name="s", storage=open_storage(url))
    for _ in range(n_trials):
        study.enqueue_trial({})
    printed = at_once(TAKING, url, workers=3)
    taken = [int(number) for text in printed for number in text.split()]
    assert sorted(taken) == list(range(n_trials))
