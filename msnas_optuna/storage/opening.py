"""Opens storages with the settings that several workers need."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from msnas_optuna.storage.quiet import quiet
from msnas_optuna.storage.recovery import GRACE_PERIOD, HEARTBEAT_INTERVAL, retry

_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a writer waits for SQLite; with Optuna's 5 s, many workers lose trials."""


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


def is_storage_url(text: str) -> bool:
    """Whether a text names a storage rather than any other file."""
    return "://" in text or _is_journal_path(text)


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
    with quiet():
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
            with quiet():
                return RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs=engine_kwargs,
                    heartbeat_interval=HEARTBEAT_INTERVAL,
                    grace_period=GRACE_PERIOD,
                    heartbeat_stale_trial_callback=retry,
                )
        except DBAPIError as error:
            if not _is_creation_race(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_creation_race(error: DBAPIError) -> bool:
    """Whether another worker creates the tables of a new database at this very moment."""
    return isinstance(error, IntegrityError) or "already exists" in str(error.orig)
