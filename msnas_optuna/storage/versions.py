"""Package versions that a study was searched with, and how many trials were requested."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from optuna.study import Study

from msnas_optuna.storage.optuna_private import set_system_attr, system_attrs
from msnas_optuna.storage.records import VERSIONS, WANTED

PACKAGES: Final = (
    "msnas-optuna", "torch", "torchvision", "optuna", "optuna-dashboard", "plotly", "numpy",
)  # fmt: skip
"""Packages that results depend on."""


def versions() -> dict[str, str]:
    """Versions of Python and of `PACKAGES` in this process."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found


def read_versions(study: Study) -> dict[str, list[str]]:
    """The versions that have searched, first to last; none before the first search."""
    stored = system_attrs(study).get(VERSIONS, {})
    return {package: list(seen) for package, seen in stored.items()}


def write_versions(study: Study) -> None:
    """Adds this process's versions to those that have searched."""
    stored = read_versions(study)
    own = versions()
    merged = {
        package: list(dict.fromkeys([*stored.get(package, ()), number]))
        for package, number in own.items()
    }
    if merged != stored:
        set_system_attr(study, VERSIONS, merged)


def wanted_trials(study: Study) -> int | None:
    """Number of trials that the last command asked for, None if it left that to the study file."""
    wanted = system_attrs(study).get(WANTED)
    return wanted if isinstance(wanted, int) else None


def write_wanted(study: Study, trials: int | None) -> None:
    """Stores the number of trials that a command asks for; None leaves it to the study file."""
    if wanted_trials(study) != trials:
        set_system_attr(study, WANTED, trials)
