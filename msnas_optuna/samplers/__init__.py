"""An Optuna sampler that proposes whole architectures, and the ways it finds them."""

from msnas_optuna.samplers.proposals import SpaceExhaustedError
from msnas_optuna.samplers.queue import queue_architectures
from msnas_optuna.samplers.sampler import PROPOSERS, ArchitectureSampler, suggest

__all__ = [
    "PROPOSERS",
    "ArchitectureSampler",
    "SpaceExhaustedError",
    "queue_architectures",
    "suggest",
]
