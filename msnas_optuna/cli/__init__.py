"""The `msnas` command: one function for each verb, and the only place that prints."""

from msnas_optuna.cli import export, predict, search, space
from msnas_optuna.cli.app import app, main

__all__ = ["app", "export", "main", "predict", "search", "space"]
