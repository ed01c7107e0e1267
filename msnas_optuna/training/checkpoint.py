"""Checkpoints: written atomically, loaded as plain tensors and verified, tied to their run."""

from __future__ import annotations

import contextlib
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.runtime.files import atomic_write

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read, or does not fit the study."""


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a training run saves itself; its last step always does."""

    path: Path
    fingerprint: Mapping[str, Any]  # settings of the run; a file with other ones is refused
    seconds: float = 60.0  # least time between two checkpoints

    def due(self, saved: float) -> bool:
        """True when the checkpoint of this `time.monotonic()` is old enough."""
        return time.monotonic() - saved > self.seconds


def save_checkpoint(
    path: Path, content: Mapping[str, Any], *, fingerprint: Mapping[str, Any]
) -> None:
    """Writes tensors, numbers, strings, dicts and lists; `path` holds a whole file, old or new.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    try:
        with atomic_write(path) as file:
            torch.save({"format": FORMAT, "fingerprint": dict(fingerprint), **content}, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        kept = "the previous checkpoint is kept" if path.exists() else "there is none before it"
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error}; {kept}. Free some disk space, or check "
            f"the folder's permissions, and run the command again: it continues."
        ) from error


@contextlib.contextmanager
def exclusive(path: Path, ranks: Ranks = ALONE) -> Iterator[None]:
    """Keeps a second run from training into the same checkpoint; the lock of a dead one is free.

    The first of `ranks` holds the lock for all.

    Raises:
        CheckpointError: another process trains into it, or its folder cannot be written.
    """
    if not ranks.first:
        yield
        return
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CheckpointError(
            f"another process trains into {path}; wait until it has ended, or stop it, and run "
            f"the command again: it continues"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"cannot lock checkpoint {path}: {error}; check the disk space and the folder's "
            f"permissions"
        ) from error
    try:
        yield
    finally:
        lock.release()


def read_losses(path: Path) -> list[float]:
    """The losses of a checkpoint's steps; CheckpointError if damaged, none without a file."""
    if not path.exists():
        return []
    with damage_named(path):
        return [float(loss) for loss in _load(path, mmap=True)["losses"]]


def load_checkpoint(path: Path, *, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint that must belong to `fingerprint`; tensors come to the CPU.

    Raises:
        CheckpointError: no file, a damaged one, or one that was made for something else (every
            difference is named).
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; run `msnas train` first")
    with damage_named(path):
        content = _load(path)
        stored, version = content["fingerprint"], content["format"]
        if version != FORMAT:
            raise CheckpointError(
                f"checkpoint {path} has format {version}, this version reads format {FORMAT}; "
                f"remove the file to train anew, or install the version that wrote it"
            )
        pairs = {key: (stored.get(key), fingerprint.get(key)) for key in {*stored, *fingerprint}}
        differences = [
            f"  {key}: {was!r} in the checkpoint, {now!r} in the study"
            for key, (was, now) in sorted(pairs.items())
            if was != now
        ]
        if differences:
            raise CheckpointError(
                f"checkpoint {path} does not fit the study:\n"
                + "\n".join(differences)
                + "\nRestore these settings, or remove the file to train anew."
            )
        return content


def _load(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Verifies the checksums of the archive, which torch does not, and loads what it holds."""
    with zipfile.ZipFile(path) as archive:
        if (record := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {record} does not fit")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Whatever fails while the content of a checkpoint is used becomes a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a file that somebody has made can raise anything
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error!r:.200}); remove it and run the command again"
        ) from error
