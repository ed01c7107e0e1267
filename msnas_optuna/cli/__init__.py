"""The `msnas` command: one function for each verb, and the only place that prints."""

from msnas_optuna.cli import (
    ablation,
    asktell,
    baseline,
    detectors,
    doctor,
    rank,
    search,
    show,
    space,
    storage,
)
from msnas_optuna.cli.terminal import app

__all__ = [
    "ablation",
    "app",
    "asktell",
    "baseline",
    "detectors",
    "doctor",
    "main",
    "rank",
    "search",
    "show",
    "space",
    "storage",
]

main = app
