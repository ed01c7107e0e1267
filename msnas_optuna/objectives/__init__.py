"""Objectives of a study: callables that take a trial and return its values."""

from msnas_optuna.objectives.bench import Bench, Score
from msnas_optuna.objectives.oneshot import OneShotObjective
from msnas_optuna.objectives.standalone import StandaloneObjective

__all__ = ["Bench", "OneShotObjective", "Score", "StandaloneObjective"]
