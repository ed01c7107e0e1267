"""Files that are there as a whole or not at all, and their digests."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from msnas_optuna.runtime.processes import start_time

_TEMPORARY: Final = ".tmp"
_NAME_PART: Final = 40  # characters of a name that its temporary file repeats: names are limited


@contextmanager
def atomic_write(
    path: Path, *, overwrite: bool = True, durable: bool = True
) -> Iterator[BinaryIO]:
    """Opens a new file that takes its place when the block ends without an error.

    Whatever happens, `path` holds a whole file, the old or the new. A link in its place is
    replaced, not followed, and nobody can guess the name of the temporary file. The folder is made
    if need be. A `durable` file survives a power failure, and what killed processes have left of
    such files is removed; False is for many small ones.

    Raises:
        FileExistsError: the file is there, and `overwrite` is false.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f"{os.getpid()}.{secrets.token_hex(8)}"
    temporary = path.with_name(f".{path.name[:_NAME_PART]}.{own}{_TEMPORARY}")
    if durable:
        _remove_leftovers(path)
    try:
        with temporary.open("xb") as file:  # exclusive: it follows no link
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name[:_NAME_PART])}.*{_TEMPORARY}"):
        pid = leftover.name.split(".")[-3]
        if pid.isdecimal() and start_time(int(pid)) is None:
            leftover.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
