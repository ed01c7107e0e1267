"""Checkpoints: written atomically, loaded as plain tensors, tied to what they were made for."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.runtime.files import atomic_write

FORMAT = 1

_DAMAGE = (  # exceptions that reading a damaged file raises
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip


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
    with _damage_named(path):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return [float(loss) for loss in content["losses"]]


def load_checkpoint(path: Path, *, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint that must belong to `fingerprint`; tensors come to the CPU.

    Raises:
        CheckpointError: no file, a damaged one, or one that was made for something else (every
            difference is named).
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; run `msnas train` first")
    with _damage_named(path):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        stored, version = content["fingerprint"], content["format"]
    if version != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {version}, this version reads format {FORMAT}; "
            f"remove the file to train anew, or install the version that wrote it"
        )
    differences = [
        f"  {key}: {stored.get(key)!r} in the checkpoint, {fingerprint.get(key)!r} in the study"
        for key in sorted({*stored, *fingerprint})
        if stored.get(key) != fingerprint.get(key)
    ]
    if differences:
        raise CheckpointError(
            f"checkpoint {path} does not fit the study:\n"
            + "\n".join(differences)
            + "\nRestore these settings, or remove the file to train anew."
        )
    return content


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error!r:.200}); remove it and run the command again"
        ) from error
