"""Failures of a storage that was opened: which errors they are, and how many are borne."""

from __future__ import annotations

import logging
import time
from typing import Final

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError

from msnas_optuna.storage.opening import StorageError
from msnas_optuna.storage.recovery import POLL_SECONDS

_ATTEMPTS: Final = 5  # failures in a row; a server that has gone away is waited for each time
_REPAIR: Final = (
    "finished trials are kept: check the server or the disk, and that its user may write, and run "
    "the command again, it continues"
)

_logger = logging.getLogger(__name__)


def is_of_storage(error: Exception) -> bool:
    """True if a storage did not answer; by name for gRPC, which need not be installed."""
    names = {cls.__name__ for cls in type(error).__mro__}
    known = isinstance(error, (StorageError, StorageInternalError, DBAPIError))
    return known or "RpcError" in names


def in_words(error: Exception) -> str:
    """The message of an error; with the repair, if it is one of an opened storage."""
    if isinstance(error, StorageError) or not is_of_storage(error):
        return str(error)
    return f"the storage has failed ({_reason(error)}); {_REPAIR}"


class StorageFailures:
    """Counts the failures of a storage in a row."""

    def __init__(self) -> None:
        self._count = 0

    def end(self) -> None:
        """The storage has answered."""
        self._count = 0

    def wait(self, error: Exception) -> None:
        """Waits a moment after a failure of the storage, and raises any other error.

        Raises:
            StorageError: it was one too many.
        """
        if not is_of_storage(error):
            raise error
        self._count += 1
        reason = _reason(error)
        if self._count >= _ATTEMPTS:
            raise StorageError(
                f"the storage has failed {self._count} times in a row ({reason}); {_REPAIR}"
            ) from error
        _logger.warning("the storage has failed (%s); trying again", reason)
        time.sleep(POLL_SECONDS)


def _reason(error: BaseException) -> str:
    """The message of an error or its cause, in a line; that of one of gRPC is a page."""
    error = error.__cause__ or error
    error = getattr(error, "orig", None) or error
    details = getattr(error, "details", None)
    said = str((details() if callable(details) else None) or error)
    return said.splitlines()[0] if said else type(error).__name__
