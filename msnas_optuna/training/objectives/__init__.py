"""Objectives of a study: callables that take a trial and return its values."""

from msnas_optuna.training.objectives.oneshot import OneShotObjective
from msnas_optuna.training.objectives.standalone import StandaloneObjective, Training

__all__ = ["OneShotObjective", "StandaloneObjective", "Training"]
