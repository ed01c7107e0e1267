"""Tells whether processes of this host live."""

from __future__ import annotations

import os
import socket
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
