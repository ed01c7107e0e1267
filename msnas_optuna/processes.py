"""Processes: whether those of this host live, and the place of this one among its peers."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def host() -> str:
    """Host name and process namespace; containers may share the former, never the latter."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()


@lru_cache(maxsize=8)
def started_once(pid: int) -> str:
    """The same for a process that lives, looked up once."""
    return started(pid) or ""


def started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, "" where unknown, None if it is dead."""
    if not Path("/proc/self/stat").exists():
        return "" if _answers(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # state and starttime, see proc(5)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Place:
    """The place of a process among those that were started together.

    Attributes:
        rank: 0..size - 1, over all machines.
        size: W, number of processes.
        local_rank: the same among the processes of this machine.
        local_size: number of processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched_place() -> Place | None:
    """What torchrun's variables say of this process, None where it was not launched so.

    Raises:
        ValueError: a variable is no number.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return None
    try:
        return Place(*(int(os.environ[name]) for name in names))
    except ValueError as error:
        raise ValueError(f"{', '.join(names)} must be as torchrun sets them: {error}") from None
