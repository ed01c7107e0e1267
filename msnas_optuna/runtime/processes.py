"""Processes: which of them live, and the place of this one among its peers."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

_FIRST_NAMESPACE: Final = "pid:[4026531836]"  # Linux's constant, outside all containers


@dataclass(frozen=True)
class Host:
    """Where process ids mean something: a machine, or a container on one, since its last start."""

    name: str  # machines that were cloned may share it
    namespace: str = ""  # of processes; containers of one machine may share all but this
    boot: str = ""  # names the last start of the machine, "" where unknown
    machine: str = ""  # digest of /etc/machine-id, which should not leave it; "" where unknown

    @classmethod
    @lru_cache(maxsize=1)
    def current(cls) -> Host:
        """That of this process."""
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        boot, machine = map(_digest, ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"))
        name = "".join(socket.gethostname().split()) or "localhost"
        return cls(name, namespace, boot, machine)

    @classmethod
    def parse(cls, text: str) -> Host:
        """The inverse of `str`."""
        name, *rest = text.split()
        found = {word.partition(":")[0]: word for word in rest}
        boot, machine = (found.get(k, "").partition(":")[2] for k in ("boot", "machine"))
        return cls(name, found.get("pid", ""), boot, machine)

    def __str__(self) -> str:
        parts = [self.name, self.namespace]
        parts += [f"boot:{self.boot}"] if self.boot else []
        parts += [f"machine:{self.machine}"] if self.machine else []
        return " ".join(filter(None, parts))

    def is_here(self) -> bool:
        """True of the host of this process."""
        return self == Host.current()

    def has_restarted(self) -> bool:
        """True of this machine before its last start: the processes of then have ended.

        Never true of a container: its machine id belongs to the image.
        """
        here = Host.current()
        return (
            "" not in (self.machine, self.boot, here.boot)
            and self.boot != here.boot
            and self.namespace == _FIRST_NAMESPACE
            and (self.name, self.namespace, self.machine)
            == (here.name, here.namespace, here.machine)
        )


def _digest(file: str) -> str:
    try:
        content = Path(file).read_bytes().strip()
    except OSError:
        return ""
    return hashlib.sha256(b"msnas_optuna:" + content).hexdigest()[:12] if content else ""


@lru_cache(maxsize=8)
def cached_start_time(pid: int) -> str:
    """The start time of a process that lives, looked up once."""
    return start_time(pid) or ""


def start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, "" where unknown, None if it is dead."""
    if not Path("/proc/self/stat").exists():
        with suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # state and starttime, see proc(5)


@dataclass(frozen=True)
class Place:
    """The place of a process among those that were started together."""

    rank: int = 0  # 0..size - 1, over all machines
    size: int = 1  # W
    local_rank: int = 0  # among the processes of this machine
    local_size: int = 1


def torchrun_place() -> Place | None:
    """The place that torchrun's variables give this process; None where it was not launched so.

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
