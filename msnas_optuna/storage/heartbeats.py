"""Heartbeats, by which a worker on any machine says that it lives; databases alone keep them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Final

from optuna.storages import RDBStorage
from optuna.study import Study
from sqlalchemy import text

from msnas_optuna.storage.optuna_private import (
    database_of,
    stale_trial_ids,
    storage_of,
    study_id,
)

HEARTBEAT_INTERVAL: Final = 60  # seconds; shorter ones cost SQLite writes
GRACE_PERIOD: Final = 120  # seconds
_JOIN_SECONDS: Final = 2.0  # then a worker goes on although its last beat waits for the server

_BEATING: Final = text(
    "SELECT h.trial_id FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id "
    "WHERE t.study_id = :study AND t.state = 'RUNNING'"
)


def keeps_heartbeats(study: Study) -> bool:
    """True if this process can write and read heartbeats in the study's storage."""
    return _keeper(study) is not None


def _keeper(study: Study) -> RDBStorage | None:
    database = database_of(storage_of(study))
    return database if database is not None and database.get_heartbeat_interval() else None


def beating(study: Study) -> set[int]:
    """Ids of the running trials that have a heartbeat, however old."""
    database = _keeper(study)
    if database is None:
        return set()
    with database.engine.connect() as connection:
        return set(connection.execute(_BEATING, {"study": study_id(study)}).scalars())


def stale(study: Study) -> set[int]:
    """Ids of running trials whose heartbeat has ceased, by the clock of the database alone."""
    database = _keeper(study)
    return set() if database is None else set(stale_trial_ids(database, study))


@contextmanager
def heartbeat(study: Study, trial_id: int) -> Iterator[None]:
    """Tells other workers that this one lives, where the storage can; the first time at once."""
    database = _keeper(study)
    if database is None:
        yield
        return
    done, interval = Event(), database.get_heartbeat_interval()

    def beat() -> None:
        while not done.wait(interval):
            with suppress(Exception):  # the next beat, or the worker's own call, will tell
                database.record_heartbeat(trial_id)

    database.record_heartbeat(trial_id)
    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=_JOIN_SECONDS)
