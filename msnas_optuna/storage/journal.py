"""Optuna's journal file, made to survive a full disk: a torn line is cut off, errors are told."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from msnas_optuna.storage.optuna_private import quiet

FILE_REPAIR: Final = "check the path, its permissions and the free disk space"
_BLOCK: Final = 1 << 16  # bytes


def open_journal(path: Path) -> JournalStorage:
    """Opens a journal, new or old; OSError or, if it is damaged, StorageInternalError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            return JournalStorage(_Backend(path))
    except StorageInternalError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


class _Backend(JournalFileBackend):
    """A journal file whose failures are failures of a storage, as those of a database are."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Lock(path))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        with self._told():
            yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._told():
            super().append_logs(logs)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: the lock was lost
            reason = getattr(error, "strerror", None) or error
            raise StorageInternalError(
                f"the journal {self._file_path} fails: {reason}; {FILE_REPAIR}"
            ) from error
        except json.JSONDecodeError as error:
            raise StorageInternalError(
                f"the journal {self._file_path} has a damaged line ({error}); remove that line or "
                "restore a copy of the file"
            ) from None


class _Lock(JournalFileOpenLock):
    """The lock of a writer, who must not go on in the middle of a line that another has begun."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        acquired = super().acquire()
        try:
            _cut_torn_line(self._path)
        except BaseException:
            self.release()
            raise
        return acquired


def _cut_torn_line(path: Path) -> None:
    """Removes a last line without an end, as a full disk or a kill leaves it; readers skip it."""
    with path.open("rb+") as file:
        size = start = file.seek(0, os.SEEK_END)
        end = -1
        while start > 0 and end < 0:
            start = max(0, start - _BLOCK)
            file.seek(start)
            end = file.read(size - start).rfind(b"\n")
        kept = start + end + 1
        if kept < size:
            file.truncate(kept)
