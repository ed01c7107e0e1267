"""Opens storages with the settings that several workers need."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from msnas_optuna.storage.heartbeats import GRACE_PERIOD, HEARTBEAT_INTERVAL
from msnas_optuna.storage.journal import FILE_REPAIR, open_journal
from msnas_optuna.storage.proxy import open_proxy
from msnas_optuna.storage.quiet import hush_cursors, quiet
from msnas_optuna.storage.recovery import retry
from msnas_optuna.storage.urls import (
    FILES,
    is_journal_path,
    parse,
    redacted,
    sqlite_url,
    storage_file,
    url_rule,
    without_secrets,
)

_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a writer waits for SQLite; with Optuna's 5 s, many workers lose trials."""

RECONNECT_SECONDS: Final = 300.0
"""How long workers wait for a server, of a database or a proxy, that has gone away."""

_RECONNECT_PAUSE: Final = 1.0

_S = TypeVar("_S", bound=RDBStorage)


class StorageError(RuntimeError):
    """A storage cannot be opened; the message names the repair and no password."""


def open_storage(url: str) -> BaseStorage:
    """Opens a storage with the settings that several workers need.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`,
            `postgresql+psycopg://user:password@host/database`, `grpc://host:port` of a proxy
            (see `proxy.serve_storage`), or for a network file system `journal:///path` or a plain
            path that ends in .log or .journal.

    Raises:
        ValueError: the URL is none of these.
        StorageError: there is no such file or server, it refuses the user, or its driver is not
            installed.
    """
    open_it, repair = _opener(url)
    try:
        return open_it()
    except (SQLAlchemyError, OptunaError, sqlite3.Error, OSError, ImportError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(cause.orig if isinstance(cause, DBAPIError) else cause or error)
        reason = "; ".join(line.strip() for line in reason.splitlines() if line.strip())
        raise StorageError(
            f"cannot open the storage {redacted(url)}: {without_secrets(reason, url)}; {repair}"
        ) from None  # the cause may quote the password


def _opener(url: str) -> tuple[Callable[[], BaseStorage], str]:
    """What opens the storage, and what to do if it fails."""
    file = storage_file(url)
    if is_journal_path(url):
        return partial(open_journal, Path(url)), FILE_REPAIR
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return partial(_open_postgres, parsed), (
            "check that the server runs, and user, password, host, port and database of the URL"
        )
    if backend == "grpc":
        return _proxy_opener(parsed), (
            "check host and port, and that `msnas storage-proxy` runs there"
        )
    if backend not in FILES:
        raise ValueError(url_rule(url))
    if file is None:
        raise ValueError(
            f"a {backend} storage needs a file, as in {backend}:///study.db; got {redacted(url)}"
        )
    if backend == "journal":
        return partial(open_journal, file), FILE_REPAIR
    return partial(_open_sqlite, parsed, file), FILE_REPAIR


def _proxy_opener(url: URL) -> Callable[[], BaseStorage]:
    if not url.host or not url.port or url.password or url.database or url.query:
        raise ValueError(f"a proxy's URL is grpc://host:port, got {redacted(str(url))}")
    return partial(open_proxy, url.host, url.port, patience=RECONNECT_SECONDS)


class _SqliteStorage(RDBStorage):
    """One where of several workers that take or end a trial at once, one succeeds.

    Optuna reads the state, then writes the next. SQLite knows no SELECT FOR UPDATE, so that two
    workers would both read WAITING; here the lock of a writer is taken before the reading.
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
        """Begins a transaction of SQLAlchemy."""
        if getattr(self._locking, "wanted", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open_sqlite(url: URL, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    _create_sqlite(path)
    _enable_wal(path)
    storage = _open_rdb(url, {"connect_args": {"timeout": _LOCK_TIMEOUT}}, kind=_SqliteStorage)
    event.listen(storage.engine, "begin", storage.lock_first)

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
        # The ping finds connections that have died.
        storage = _open_rdb(url, {"pool_pre_ping": True}, kind=RDBStorage)
    except ImportError:
        raise ImportError(
            f"no driver for {url.drivername} is installed; install one, for example with "
            "`pip install 'psycopg[binary]'` and a URL that starts with postgresql+psycopg://"
        ) from None

    @event.listens_for(storage.engine, "do_connect")
    def _patiently(dialect: Any, _: Any, args: list[Any], options: dict[str, Any]) -> Any:
        return _reconnect(partial(dialect.connect, *args, **options), dialect.loaded_dbapi.Error)

    return storage


def _reconnect(connect: Callable[[], Any], failure: type[Exception]) -> Any:
    """Connects to a server that was there before; a restart of it only takes time."""
    deadline = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return connect()
        except failure:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RECONNECT_PAUSE)


def _open_rdb(url: URL, engine_kwargs: dict[str, Any], *, kind: type[_S]) -> _S:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            with quiet():
                storage = kind(
                    url.render_as_string(hide_password=False),
                    engine_kwargs=engine_kwargs,
                    heartbeat_interval=HEARTBEAT_INTERVAL,
                    grace_period=GRACE_PERIOD,
                    heartbeat_stale_trial_callback=retry,
                )
            hush_cursors(storage.engine)
            return storage
        except DBAPIError as error:
            if not _is_creation_race(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_creation_race(error: DBAPIError) -> bool:
    """Whether another worker creates the tables of a new database at this very moment."""
    return isinstance(error, IntegrityError) or "already exists" in str(error.orig)
