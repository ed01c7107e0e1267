"""The `msnas` command: one function for each verb, and the only place that prints."""

from msnas_optuna.cli import search, show, space
from msnas_optuna.cli.app import app, main

__all__ = ["app", "main", "search", "show", "space"]
