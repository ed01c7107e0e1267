"""Opens storages with the settings that several workers need."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.storage.heartbeats import GRACE_PERIOD, HEARTBEAT_INTERVAL
from msnas_optuna.storage.journal import FILE_REPAIR, open_journal
from msnas_optuna.storage.optuna_private import quiet
from msnas_optuna.storage.passwords import redact
from msnas_optuna.storage.proxy import open_proxy
from msnas_optuna.storage.recovery import retry
from msnas_optuna.storage.urls import parse, storage_file, without_secrets

_LOCK_TIMEOUT: Final = 60.0  # seconds; with Optuna's 5 s for SQLite, many workers lose trials
RECONNECT_SECONDS: Final = 300.0  # that workers wait for a database or a proxy that is gone
_RECONNECT_PAUSE: Final = 1.0

_REPAIRS: Final[Mapping[str, str]] = {
    "postgresql": (
        "check that the server runs, and user, password, host, port and database of the URL"
    ),
    "grpc": "check host and port, and that `msnas storage-proxy` runs there",
}

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Exception)
_S = TypeVar("_S", bound=RDBStorage)


class StorageError(RuntimeError):
    """A storage cannot be opened; the message names the repair and no password."""


def open_storage(url: str) -> BaseStorage:
    """Opens a storage with the settings that several workers need.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`,
            `postgresql+psycopg://user:password@host/database`, `grpc://host:port` of a proxy, or
            for a network file system `journal:///path` or a plain path in .log or .journal.

    Raises:
        ValueError: the URL is none of these.
        StorageError: no such file, server or driver, or the user is refused.
    """
    parsed, file = parse(url), storage_file(url)
    backend = parsed.get_backend_name()
    try:
        if file is not None:
            return _open_sqlite(parsed, file) if backend == "sqlite" else open_journal(file)
        if backend == "postgresql":
            return _open_postgres(parsed)
        return open_proxy(str(parsed.host), int(parsed.port or 0), patience=RECONNECT_SECONDS)
    except (SQLAlchemyError, OptunaError, sqlite3.Error, OSError, ImportError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(cause.orig if isinstance(cause, DBAPIError) else cause or error)
        reason = "; ".join(line.strip() for line in reason.splitlines() if line.strip())
        raise StorageError(
            f"cannot open the storage {redact(url)}: {without_secrets(reason, parsed)}; "
            f"{_REPAIRS.get(backend, FILE_REPAIR)}"
        ) from None  # the cause may quote the password


class _SqliteStorage(RDBStorage):
    """One that locks before it reads a state to write the next, for want of SELECT FOR UPDATE.

    Else two workers would both read WAITING, and take the same trial.
    """

    _locking = threading.local()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._locking.wanted = True
        try:
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            self._locking.wanted = False

    def lock_first(self, connection: Connection) -> None:
        if getattr(self._locking, "wanted", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open_sqlite(url: URL, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with suppress(FileExistsError), atomic_write(path, overwrite=False) as file:
            file.write(empty_database())
    _insist(  # SQLite does not queue for this lock
        partial(_enable_wal, path), sqlite3.OperationalError, lambda e: "locked" in str(e)
    )
    storage = _open_database(url, {"connect_args": {"timeout": _LOCK_TIMEOUT}}, _SqliteStorage)
    event.listen(storage.engine, "begin", storage.lock_first)

    @event.listens_for(storage.engine, "connect")
    def _synchronous(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # safe under WAL, one fsync less

    storage.engine.dispose()  # connections made before the listener
    return storage


def empty_database() -> bytes:
    """The content of an SQLite file with the tables of Optuna."""
    memory = RDBStorage("sqlite://")
    with memory.engine.connect() as tables:
        connection = tables.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        content = connection.serialize()
    memory.engine.dispose()
    return content


def _enable_wal(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # stays with the file


def _open_postgres(url: URL) -> RDBStorage:
    try:  # the ping finds connections that have died
        storage = _open_database(url, {"pool_pre_ping": True}, RDBStorage)
    except ImportError:
        raise ImportError(
            f"no driver for {url.drivername} is installed; install one, for example with "
            "`pip install 'psycopg[binary]'` and a URL that starts with postgresql+psycopg://"
        ) from None

    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it tells of connections that it drops

    @event.listens_for(storage.engine, "do_connect")
    def _patiently(dialect: Any, _: Any, args: list[Any], options: dict[str, Any]) -> Any:
        return _insist(  # a restart of a server that was there before only takes time
            partial(dialect.connect, *args, **options),
            dialect.loaded_dbapi.Error,
            seconds=RECONNECT_SECONDS,
            pause=_RECONNECT_PAUSE,
        )

    return storage


def _open_database(url: URL, engine_kwargs: dict[str, Any], kind: type[_S]) -> _S:
    def create() -> _S:
        with quiet():
            return kind(
                url.render_as_string(hide_password=False),
                engine_kwargs=engine_kwargs,
                heartbeat_interval=HEARTBEAT_INTERVAL,
                grace_period=GRACE_PERIOD,
                heartbeat_stale_trial_callback=retry,
            )

    storage = _insist(
        create,
        DBAPIError,  # where another worker creates the tables at this very moment
        lambda error: isinstance(error, IntegrityError) or "already exists" in str(error.orig),
    )
    pool = type(storage.engine.pool)  # its connection is dropped, a traceback helps nobody
    logger = logging.getLogger(f"{pool.__module__}.{pool.__name__}")
    logger.addFilter(lambda record: record.msg != "Error closing cursor")
    return storage


def _insist(
    call: Callable[[], _T],
    failure: type[_E],
    passes: Callable[[_E], bool] = lambda error: True,
    *,
    seconds: float = _LOCK_TIMEOUT,
    pause: float = 0.1,
) -> _T:
    """Calls again and again, for so many seconds, where a failure is one that passes."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except failure as error:
            if not passes(error) or time.monotonic() > deadline:
                raise
            time.sleep(pause)
