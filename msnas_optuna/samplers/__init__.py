"""Optuna samplers that propose whole architectures."""

from msnas_optuna.samplers.msnas import MSNASSampler, SpaceExhaustedError
from msnas_optuna.samplers.queue import queue_architectures

__all__ = ["MSNASSampler", "SpaceExhaustedError", "queue_architectures"]
