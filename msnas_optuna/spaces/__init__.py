"""Search spaces and the exact sets of feasible architectures in them."""

from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError, Space

__all__ = ["FeasibleSet", "InvalidArchitectureError", "Space"]
