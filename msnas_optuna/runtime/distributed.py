"""The processes that train one network together, as torchrun starts them.

Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
A rank is one of W processes. On several machines all must see the run folder.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from msnas_optuna.runtime.processes import Place, torchrun_place

# Longest wait for others, as while the first rank evaluates; torchrun notices a dead one at once.
TIMEOUT: Final = timedelta(hours=2)


class PeerLostError(RuntimeError):
    """Another rank has ended while this one was waiting for it."""


@dataclass(frozen=True)
class Ranks(Place):
    """The processes that train together; all of them call the same methods in the same order.

    Methods that talk to other ranks raise PeerLostError where one of these has ended.
    """

    @property
    def first(self) -> bool:
        """True of the process that talks to the user and writes the files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every rank's tensor; gradients do not pass."""
        total = values.detach().clone()
        if self.size > 1:
            with self._peers():
                dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """True where the flag is set on any rank."""
        return bool(self.sum(torch.tensor(int(flag))))

    def broadcast(self, value: Any) -> Any:
        """The first rank's value, whatever the others pass."""
        if self.size == 1:
            return value
        values = [value]
        with self._peers():
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    @contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise PeerLostError(
                f"rank {self.rank} has lost the other processes; the message of the one that "
                f"ended first says why"
            ) from error

    def wait(self) -> None:
        """Waits until every rank has come here."""
        self.any(False)

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Inside, rank 0 works alone; then the others do, and find what it has made."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def require_shares(self, batch_size: int, key: str) -> None:
        """Raises ValueError unless a batch can be split evenly."""
        if batch_size % self.size:
            fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise ValueError(
                f"{key} is the batch of all processes together and must be a multiple of their "
                f"number, got {batch_size} for {self.size} processes; start "
                f"{', '.join(map(str, fitting))} processes"
            )


ALONE: Final = Ranks()


def torchrun_ranks() -> Ranks:
    """The ranks that torchrun's variables give; one process where there are none."""
    place = torchrun_place()
    return ALONE if place is None else Ranks(**asdict(place))


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, for as long as the block lasts.

    Tensors are summed through NCCL if this process's device is a GPU, through gloo if a CPU.
    """
    ranks = torchrun_ranks()
    if ranks.size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, _, _ = next(rendezvous("env://", ranks.rank, ranks.size, timeout=TIMEOUT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=_store_of_this_start(store, ranks),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=TIMEOUT,
    )
    yield ranks
    dist.destroy_process_group()  # after an error it could wait for a rank that is gone


def _store_of_this_start(store: Store, ranks: Ranks) -> Store:
    """The part of torchrun's store that only the processes of this start write to.

    An elastic restart gets the store with the addresses of the processes that died (PyTorch issue
    135712), and its count of restarts differs between machines. So the first rank draws a name;
    each of the others asks for it under a name of its own, which no dead one has, and confirms it.
    """
    if not ranks.first:
        own = uuid.uuid4().hex
        store.set(f"asks/{ranks.rank}", own)
        name = store.get(f"answer/{own}").decode()  # waits
        store.set(f"{name}/{ranks.rank}", "")
        return PrefixStore(name, store)
    name, deadline = uuid.uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    for rank in range(1, ranks.size):
        while not store.check([f"{name}/{rank}"]):
            if store.check([f"asks/{rank}"]):
                store.set(f"answer/{store.get(f'asks/{rank}').decode()}", name)
            if time.monotonic() > deadline:
                raise PeerLostError(f"rank {rank} did not start within {TIMEOUT}; start again")
            time.sleep(0.01)
    return PrefixStore(name, store)


def resolve_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Of several processes on a machine each has the GPU of its local rank.

    Raises:
        ValueError: a GPU is asked for that is not there, or several processes would share one.
    """
    n_gpus = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if ranks.local_size > 1:
        if device.index is not None or ranks.local_size > n_gpus:
            raise ValueError(
                f"each process needs a GPU of its own, got runtime.device = {name!r} for "
                f"{ranks.local_size} processes and {n_gpus} GPUs; set runtime.device = 'auto' "
                f"and torchrun's --nproc-per-node to the number of GPUs, or runtime.device = 'cpu'"
            )
        return torch.device("cuda", ranks.local_rank)
    if (device.index or 0) >= n_gpus:
        raise ValueError(
            f"runtime.device is {name!r}, but PyTorch sees {n_gpus} GPUs; "
            f"set runtime.device = 'auto'"
        )
    return device
