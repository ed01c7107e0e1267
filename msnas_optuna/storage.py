"""Opens storages and studies, and holds the name of every key that the package stores.

A study lives in its storage alone: the plan of each trial, the configuration of the study, what
an interruption left behind. Keys are fixed names, never derived from a class, so that renaming a
class orphans no stored study.
"""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import sqlite3
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

PLAN: Final = "msnas:plan"
"""Trial system attribute: the `Plan` of the trial."""

INTERRUPTED: Final = "msnas:interrupted"
"""Trial system attribute: the number of the trial that the user stopped."""

CONFIG: Final = "msnas:config"
"""Study user attribute: the configuration that the study was created with."""

GENERATION: Final = "generation"
"""Trial user attribute, for tables and figures: the generation as an integer."""

ORIGIN: Final = "origin"
"""Trial user attribute, for tables and figures: how the architecture came about."""

ERROR: Final = "error"
"""Trial user attribute: why the evaluation of the architecture failed."""

QUEUED: Final = "msnas:queued"
"""Trial system attribute: we have queued the trial, so it has parameters before it has a plan."""

FIXED_PARAMS: Final = "fixed_params"
"""Optuna's trial system attribute: what `Study.enqueue_trial` fixes."""

RETRY_HISTORY: Final = "retry_history"
"""Optuna's trial system attribute: the numbers of the trials that this one repeats."""

MAX_RETRY: Final = 2
"""How often a trial is repeated whose process died; it may be what killed the process."""

HEARTBEAT_INTERVAL: Final = 60
GRACE_PERIOD: Final = 120
"""Seconds. Shorter heartbeats cost SQLite writes."""

_POLL_SECONDS: Final = 2.0
"""Between two looks at what other workers do."""

PATIENCE: Final = GRACE_PERIOD + 2 * HEARTBEAT_INTERVAL
"""Seconds without news after which a trial of another worker is certainly alive."""

_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a writer waits for SQLite; with Optuna's 5 s, many workers lose trials."""

_UNPLANNED_GRACE: Final = timedelta(minutes=1)
"""A trial is planned within seconds of its creation, so an older one without a plan is lost."""


class StudyMismatchError(ValueError):
    """A stored study was created with another configuration than the one that resumes it."""


@dataclass(frozen=True)
class Worker:
    """The process that evaluates a trial.

    Attributes:
        host: host name and process namespace; process ids mean something inside it only.
        pid: process id.
        started: start time of the process, which tells it from a later one with the same id.
        trial: number of the trial. A retry copies the plan, so another number says that the
            record belongs to the trial that is repeated.
    """

    host: str
    pid: int
    started: str
    trial: int

    @classmethod
    def current(cls, trial: int) -> Worker:
        """This process, at work on a trial."""
        pid = os.getpid()
        return cls(_host(), pid, _started_once(pid), trial)

    def is_dead(self) -> bool:
        """Whether the process has ended; False for a process of another host."""
        return self.host == _host() and _started(self.pid) != self.started


@dataclass(frozen=True)
class Plan:
    """A trial's architecture, fixed before its evaluation starts.

    Attributes:
        params: every parameter of the architecture.
        generation: 0 for the first population.
        origin: "random", "queued", "reevaluated" or the operator that made the architecture.
        parents: numbers of the trials that the operator started from.
        slot: place in the sequence of proposals; a retry keeps the slot of what it repeats.
        worker: the process that evaluates the trial.
        repeat: how many measurements of the architecture were planned before this one; no two
            trials of an architecture have the same.
    """

    params: Mapping[str, Any]
    generation: int
    origin: str
    parents: tuple[int, ...]
    slot: int
    worker: Worker
    repeat: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan in types that JSON keeps."""
        return {**asdict(self), "params": dict(self.params), "parents": list(self.parents)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`.

        Raises:
            ValueError: the stored value is no plan.
        """
        try:
            values = dict(stored)
            values["parents"] = tuple(values["parents"])
            values["worker"] = Worker(**values["worker"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{PLAN} must hold a plan as written by this version, got {stored!r}"
            ) from error


def read_plan(trial: FrozenTrial) -> Plan | None:
    """The plan of a trial, or None for a trial that another sampler made."""
    stored = trial.system_attrs.get(PLAN)
    return None if stored is None else Plan.from_json(stored)


def known_params(trial: FrozenTrial, plan: Plan | None) -> dict[str, Any]:
    """The parameters of a trial as far as they are fixed, whether suggested already or not.

    Args:
        trial: the trial.
        plan: its plan, if it has one.
    """
    planned = {} if plan is None else plan.params
    return {**planned, **trial.system_attrs.get(FIXED_PARAMS, {}), **trial.params}


def repeat_of(trial: Trial) -> int:
    """How many measurements of the trial's parameters come before it, for its random seed.

    Planned for trials of our sampler; for others, equal trials with a lower number are counted.
    """
    trials = trial.study.get_trials(deepcopy=False)
    plan = read_plan(trials[trial.number])
    if plan is not None:
        return plan.repeat
    return sum(t.params == trial.params for t in trials[: trial.number])


def write_plan(study: Study, trial: FrozenTrial, plan: Plan) -> None:
    """Stores the plan, and shows its generation and origin where people look for them."""
    _write_system_attr(study, trial, PLAN, plan.to_json())
    for key, value in ((GENERATION, plan.generation), (ORIGIN, plan.origin)):
        if trial.user_attrs.get(key) != value:
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
            trial.user_attrs[key] = value


def _write_system_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    study._storage.set_trial_system_attr(trial._trial_id, key, value)
    trial.system_attrs[key] = value  # `trial` is a snapshot that Optuna passes on to the sampler


@dataclass(frozen=True)
class TrialRecord:
    """What the evaluation of an architecture has measured, as flat user attributes of the trial.

    Attributes:
        arch: the architecture in the notation of the paper's Tables 7-9.
        gflops: 1e9 multiply-adds of encoder + RPN head.
        mparams: 1e6 parameters of the whole detector.
        ap50: COCO AP at IoU 0.5, in [0, 1] as all AP values.
        ap75: COCO AP at IoU 0.75.
        ap_small: COCO AP of small objects; None where there are none.
        ap_medium: COCO AP of medium objects.
        ap_large: COCO AP of large objects.
        train_seconds: time of fine-tuning or training.
        evaluate_seconds: time of inference and COCO evaluation.
        repeat: how many measurements of the architecture came before; added to the seed.
        latency_ms: median time of the detector's forward pass on one image; None where it is
            no objective.
    """

    arch: str
    gflops: float
    mparams: float
    ap50: float
    ap75: float
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    train_seconds: float
    evaluate_seconds: float
    repeat: float = 0
    latency_ms: float | None = None


def write_record(trial: Trial, record: TrialRecord) -> None:
    """Stores what was measured, one user attribute for each value but the defaults."""
    for field in fields(record):
        key, value = field.name, getattr(record, field.name)
        if value == field.default:
            continue  # a database commits each attribute on its own
        trial.set_user_attr(key, float(value) if isinstance(value, (int, float)) else value)


def read_record(trial: FrozenTrial) -> TrialRecord | None:
    """What was measured, or None for a trial that has not been evaluated to its end."""
    required = {field.name for field in fields(TrialRecord) if field.default is MISSING}
    if not required <= trial.user_attrs.keys():
        return None
    names = TrialRecord.__dataclass_fields__.keys() & trial.user_attrs.keys()
    return TrialRecord(**{name: trial.user_attrs[name] for name in names})


def is_retry(trial: FrozenTrial) -> bool:
    """Whether the trial repeats an earlier one."""
    return bool(trial.system_attrs.get(RETRY_HISTORY))


def root_number(trial: FrozenTrial) -> int:
    """The number of the trial that this one repeats, in the end; its own if it repeats none."""
    history = trial.system_attrs.get(RETRY_HISTORY)
    return int(history[0]) if history else trial.number


# Storages


def open_storage(url: str) -> BaseStorage:
    """Opens a storage with the settings that several workers need.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`,
            `postgresql://user:password@host/database`, or for a network file system
            `journal:///path` or a plain path that ends in .log or .journal.

    Raises:
        ValueError: the URL is none of these.
        ImportError: the database driver is not installed.
    """
    if _is_journal_path(url):
        return _open_journal(Path(url))
    parsed = _parse(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return _open_postgres(parsed)
    if backend not in ("sqlite", "journal"):
        raise ValueError(_url_rule(url))
    if parsed.database in (None, "", ":memory:"):
        raise ValueError(
            f"a {backend} storage needs a file, as in {backend}:///study.db; got {_redacted(url)}"
        )
    path = Path(str(parsed.database))
    return _open_journal(path) if backend == "journal" else _open_sqlite(parsed, path)


def _is_journal_path(url: str) -> bool:
    return re.fullmatch(r"[^:]+\.(log|journal)", url) is not None


def sqlite_url(path: Path) -> str:
    """The URL of a sqlite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def relative_to(url: str, folder: Path) -> str:
    """The URL of a storage whose file, if it is one, is relative to a folder.

    Raises:
        ValueError: it is no URL of a storage.
    """
    if _is_journal_path(url):
        return str(folder / url)
    parsed = _parse(url)
    file = parsed.database
    if parsed.get_backend_name() not in ("sqlite", "journal") or file in (None, "", ":memory:"):
        return url
    moved = parsed.set(database=str(folder / str(file)))
    return moved.render_as_string(hide_password=False)


def storage_exists(url: str) -> bool:
    """Whether there is anything to open; a database server is taken to be there."""
    if _is_journal_path(url):
        return Path(url).exists()
    parsed = _parse(url)
    if parsed.get_backend_name() not in ("sqlite", "journal"):
        return True
    return parsed.database is not None and Path(parsed.database).exists()


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_url_rule(url)) from None  # the cause may quote the password


def _url_rule(url: str) -> str:
    return (
        "a storage is sqlite:///path.db, postgresql://user:password@host/database or, on a "
        f"network file system, journal:///path.log; got {_redacted(url)!r}"
    )


def _redacted(url: str) -> str:
    """The URL without anything that may be part of a password, even if it cannot be parsed."""
    return re.sub(r"//.*@", "//***@", url).split("?", maxsplit=1)[0]


def _open_journal(path: Path) -> JournalStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))


def _open_sqlite(url: URL, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    _create_sqlite(path)
    _enable_wal(path)
    storage = _open_rdb(url, {"connect_args": {"timeout": _LOCK_TIMEOUT}})

    @event.listens_for(storage.engine, "connect")
    def _synchronous(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # safe under WAL, one fsync less

    storage.engine.dispose()  # connections made before the listener
    return storage


def _create_sqlite(path: Path) -> None:
    """Makes the tables elsewhere and puts them in place at once: a kill leaves no half of them."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        RDBStorage(sqlite_url(temporary)).engine.dispose()
        with suppress(FileExistsError):  # another worker was faster
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _enable_wal(path: Path) -> None:
    """Sets write-ahead logging, which lives in the file; SQLite does not queue for this lock."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def _open_postgres(url: URL) -> RDBStorage:
    try:
        return _open_rdb(url, {"pool_pre_ping": True})  # survives a restart of the server
    except ImportError:
        raise ImportError(
            f"no driver for {url.drivername} is installed; install one, for example with "
            "`pip install psycopg[binary]` and a URL that starts with postgresql+psycopg://"
        ) from None


def _open_rdb(url: URL, engine_kwargs: dict[str, Any]) -> RDBStorage:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            with _quiet():
                return RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs=engine_kwargs,
                    heartbeat_interval=HEARTBEAT_INTERVAL,
                    grace_period=GRACE_PERIOD,
                    heartbeat_stale_trial_callback=_retry,
                )
        except DBAPIError as error:
            if not _is_creation_race(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_creation_race(error: DBAPIError) -> bool:
    """Whether another worker creates the tables of a new database at this very moment."""
    return isinstance(error, IntegrityError) or "already exists" in str(error.orig)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's notes that a feature used here is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


# Studies


def open_study(
    storage: BaseStorage,
    *,
    name: str,
    directions: Sequence[str | StudyDirection],
    sampler: BaseSampler,
    config: Mapping[str, Any],
    metric_names: Sequence[str] | None = None,
) -> Study:
    """Creates a study, or resumes the stored one of this name.

    Args:
        storage: where the study lives.
        name: name of the study.
        directions: "maximize" or "minimize" for each objective.
        sampler: proposes architectures.
        config: what must not change while the study lives, in JSON types.
        metric_names: names of the objectives; "AP" where there is one and None is given.

    Raises:
        StudyMismatchError: the stored study has other directions or another configuration.
        ValueError: a direction is neither "maximize" nor "minimize".
    """
    asked = [_direction(d) for d in directions]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=asked,
        sampler=sampler,
        load_if_exists=True,
    )
    wanted: dict[str, Any] = json.loads(json.dumps(dict(config)))
    stored = study.user_attrs.get(CONFIG)
    if stored is None and study.get_trials(deepcopy=False):
        raise StudyMismatchError(
            f"study {name!r} was not created by msnas: it has trials, but no configuration; "
            "choose another study name"
        )
    _refuse_mismatch(
        name,
        {"directions": _words(study.directions), **(wanted if stored is None else stored)},
        {"directions": _words(asked), **wanted},
    )
    if stored is None:
        study.set_user_attr(CONFIG, wanted)
    _name_metrics(study, metric_names)
    return study


def _direction(direction: str | StudyDirection) -> StudyDirection:
    if isinstance(direction, StudyDirection):
        return direction
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"a direction is 'maximize' or 'minimize', got {direction!r}")
    return StudyDirection[direction.upper()]


def _words(directions: Sequence[StudyDirection]) -> list[str]:
    return [direction.name.lower() for direction in directions]


def _name_metrics(study: Study, names: Sequence[str] | None) -> None:
    wanted = ["AP"] if names is None and len(study.directions) == 1 else names
    if wanted is None or study.metric_names == list(wanted):
        return
    with _quiet():
        study.set_metric_names(list(wanted))


def require_config(study: Study, config: Mapping[str, Any]) -> None:
    """Compares the configuration, as far as it is given, with that of a stored study.

    Digests of files may be left out, because they take data to compute.

    Raises:
        StudyMismatchError: a key has another value.
    """
    stored: dict[str, Any] = study.user_attrs.get(CONFIG) or {}
    wanted = json.loads(json.dumps(dict(config)))
    digests = {key for key in stored if key.endswith(".sha256")} - wanted.keys()
    known = {key: value for key, value in stored.items() if key not in digests}
    _refuse_mismatch(study.study_name, known, wanted)


def _refuse_mismatch(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    was, now = flatten(stored), flatten(wanted)
    lines = [
        f"  {key}: {_shown(was, key)} stored, {_shown(now, key)} given"
        for key in sorted(was.keys() | now.keys())
        if key not in was or key not in now or was[key] != now[key]
    ]
    if lines:
        raise StudyMismatchError(
            f"study {name!r} exists with another configuration:\n"
            + "\n".join(lines)
            + "\nrestore the stored values, or choose another study name"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one with dotted keys, as in a study file: `sampler.population_size`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "nothing"


# Trials that a process left behind


def mark_interrupted(study: Study, trial: Trial | FrozenTrial) -> None:
    """Says that the user stopped this running trial: the next run repeats it."""
    study._storage.set_trial_system_attr(trial._trial_id, INTERRUPTED, trial.number)


def recover_lost_trials(study: Study) -> list[int]:
    """Repeats what processes of this host, now ended, have left unfinished.

    A trial that a dead process left running fails and is queued again with the same plan, at
    most `MAX_RETRY` times; so is one that was marked as interrupted, without a limit. A trial
    that no plan was written for within a minute is queued again too, whatever its host. Running
    trials of other hosts are left alone: only their heartbeat tells whether they live.

    Returns:
        Numbers of the trials that ended here or were queued again.
    """
    with _quiet():
        trials = study.get_trials(deepcopy=False)
        retried = {_repeated(trial) for trial in trials}
        recovered = []
        for trial in trials:
            if trial.state == TrialState.RUNNING and _is_lost(trial):
                if not _fail(study, trial):
                    continue  # another process was faster
            elif trial.number in retried or not _awaits_retry(trial):
                continue
            recovered.append(trial.number)
            _retry(study, study._storage.get_trial(trial._trial_id))
        return recovered


def await_others(study: Study) -> bool:
    """Gives other workers a moment, and notices those that have died.

    Returns:
        False where nothing can be noticed, because the storage has no heartbeat.
    """
    if not is_heartbeat_enabled(study._storage):
        return False
    time.sleep(_POLL_SECONDS)
    with _quiet():
        optuna.storages.fail_stale_trials(study)
    recover_lost_trials(study)
    return True


def n_slots(study: Study) -> int:
    """How many proposals the study has, in whatever state."""
    return len(_chains(study))


def finished_slots(study: Study) -> int:
    """How many proposals are settled: complete, pruned, or failed for good."""
    return sum(_is_settled(chain) for chain in _chains(study))


def claimed_slots(study: Study) -> int:
    """How many proposals are settled or being evaluated."""
    return sum(
        _is_settled(chain) or any(t.state == TrialState.RUNNING for t in chain)
        for chain in _chains(study)
    )


def _chains(study: Study) -> Collection[list[FrozenTrial]]:
    """Each proposal's trial with its retries."""
    chains: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        chains.setdefault(root_number(trial), []).append(trial)
    return chains.values()


def _is_settled(chain: Sequence[FrozenTrial]) -> bool:
    """Whether a trial and its retries are over."""
    if any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in chain):
        return True
    retried = {_repeated(trial) for trial in chain}
    return all(
        t.state == TrialState.FAIL and (t.number in retried or not _awaits_retry(t)) for t in chain
    )


def _repeated(trial: FrozenTrial) -> int | None:
    """The trial that this one repeats directly."""
    history = trial.system_attrs.get(RETRY_HISTORY)
    return int(history[-1]) if history else None


def _is_interrupted(trial: FrozenTrial) -> bool:
    return bool(trial.system_attrs.get(INTERRUPTED) == trial.number)  # retries copy the attribute


def _awaits_retry(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and _is_interrupted(trial)


def _is_lost(trial: FrozenTrial) -> bool:
    plan = read_plan(trial)
    if plan is not None and plan.worker.trial == trial.number:
        return plan.worker.is_dead()
    # Parameters without a plan come from another sampler, for example by `optuna ask`.
    started = trial.datetime_start
    unplanned = plan is not None or not trial.params or QUEUED in trial.system_attrs
    return unplanned and started is not None and datetime.now() - started > _UNPLANNED_GRACE


def _fail(study: Study, trial: FrozenTrial) -> bool:
    try:
        return study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def _retry(study: Study, trial: FrozenTrial) -> None:
    """Queues a failed trial again, unless it has been lost too often."""
    trials = study.get_trials(deepcopy=False)
    history = trial.system_attrs.get(RETRY_HISTORY, [])
    interruptions = sum(_is_interrupted(trials[number]) for number in (*history, trial.number))
    with _quiet():
        queue = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY + interruptions)
        queue(study, copy.deepcopy(trial))
    retries = [t for t in study.get_trials(deepcopy=False) if _repeated(t) == trial.number]
    withdraw(study, retries[1:])  # several processes may have queued the same trial


def withdraw(study: Study, doubles: Iterable[FrozenTrial]) -> None:
    """Fails those of the trials that still wait."""
    for double in doubles:
        waiting = double.state == TrialState.WAITING
        try:  # to take it over is atomic, so no worker that was faster loses its trial
            if waiting and study._storage.set_trial_state_values(
                double._trial_id, state=TrialState.RUNNING
            ):
                _fail(study, double)
        except UpdateFinishedTrialError:
            continue


# Processes


@lru_cache(maxsize=1)
def _host() -> str:
    """Host name and process namespace; containers may share the former, never the latter."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()


@lru_cache(maxsize=8)
def _started_once(pid: int) -> str:
    return _started(pid) or ""


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, "" where unknown, None if it is dead."""
    if not Path("/proc/self/stat").exists():
        return "" if _answers(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # state and starttime, see proc(5)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
