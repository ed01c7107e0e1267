"""The `msnas` command: one function for each verb, and the only place that prints."""

from msnas_optuna.cli import (
    asktell,
    doctor,
    export,
    portability,
    predict,
    search,
    show,
    space,
    storage,
)
from msnas_optuna.cli.app import app, main

__all__ = [
    "app",
    "asktell",
    "doctor",
    "export",
    "main",
    "portability",
    "predict",
    "search",
    "show",
    "space",
    "storage",
]
