"""Which worker this process is, where torchrun or `msnas search --workers` has started several."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from msnas_optuna.config import StudyConfig


@dataclass(frozen=True)
class Place:
    """The place of a worker among those that were started together.

    Attributes:
        rank: 0 to size - 1, over all machines.
        size: number of workers.
        local_rank: the same among the workers of this machine.
        local_size: number of workers of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched_place() -> Place | None:
    """This process's place under torchrun, None where nothing has launched it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    return Place(*map(int, values)) if all(map(str.isdecimal, values)) else None


def placed(config: StudyConfig, place: Place) -> StudyConfig:
    """The configuration of one of several workers: a GPU of its own, a share of the CPU's cores.

    Workers beyond the number of GPUs share them. What the study file fixes, a GPU by its number
    or the threads of a process, stays.
    """
    import torch

    runtime, n_gpus = config.runtime, torch.cuda.device_count()
    device, threads = runtime.device, runtime.threads
    if device in ("auto", "cuda") and n_gpus:
        device = f"cuda:{place.local_rank % n_gpus}"
    if not threads and place.local_size > 1:
        threads = max(1, (os.cpu_count() or 1) // place.local_size)
    return replace(config, runtime=replace(runtime, device=device, threads=threads))
