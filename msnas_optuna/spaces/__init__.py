"""Search spaces and the exact sets of feasible architectures in them."""

from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError, Space
from msnas_optuna.spaces.msnas import Architecture, MSNASSpace
from msnas_optuna.spaces.published import PRESETS, PUBLISHED

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Architecture",
    "FeasibleSet",
    "InvalidArchitectureError",
    "MSNASSpace",
    "Space",
]
