"""Shares of several workers on a machine: a GPU for each, and some of the cores."""

from __future__ import annotations

import os
from dataclasses import replace

from msnas_optuna.runtime.processes import Place
from msnas_optuna.study.config import StudyConfig


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
