"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from msnas_optuna.runtime.processes import start_time

_TEMPORARY: Final = ".tmp"


@contextmanager
def atomic_write(
    path: Path, *, overwrite: bool = True, durable: bool = True
) -> Iterator[BinaryIO]:
    """Opens a new file that takes its place when the block ends without an error.

    Whatever happens, `path` holds a whole file, the old or the new. Its folder is made if need be.
    A `durable` file survives a power failure, and what killed processes have left of such files is
    removed; False is for many small ones.

    Raises:
        FileExistsError: the file is there, and `overwrite` is false.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    if durable:
        _remove_leftovers(path)
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # follows no link that somebody has put there
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
    for leftover in path.parent.glob(f".{path.name}.*{_TEMPORARY}"):
        pid = leftover.name.removesuffix(_TEMPORARY).rpartition(".")[2]
        if pid.isdecimal() and start_time(int(pid)) is None:
            leftover.unlink(missing_ok=True)
