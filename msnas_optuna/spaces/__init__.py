"""Exact counting and drawing in search spaces: automata, additive costs, feasible sets."""

from msnas_optuna.spaces.base import (
    AdditiveCost,
    Automaton,
    FeasibleSet,
    InvalidArchitectureError,
    Space,
)

__all__ = ["AdditiveCost", "Automaton", "FeasibleSet", "InvalidArchitectureError", "Space"]
