"""Who has searched: the versions of the packages that results depend on, and with what wish."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from optuna.study import Study

from msnas_optuna.storage.records import VERSIONS, WANTED

PACKAGES: Final = (
    "msnas-optuna", "torch", "torchvision", "optuna", "optuna-dashboard", "plotly", "numpy",
)  # fmt: skip
"""Whose versions results depend on."""


def versions() -> dict[str, str]:
    """Of Python and the packages in this process."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found


def read_versions(study: Study) -> dict[str, list[str]]:
    """The versions that have searched, first to last; none of studies of older versions."""
    stored = study._storage.get_study_system_attrs(study._study_id).get(VERSIONS, {})
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
        study._storage.set_study_system_attr(study._study_id, VERSIONS, merged)


def wanted_trials(study: Study) -> int | None:
    """How many trials the last command asked for, None if it left that to the study file."""
    stored = study._storage.get_study_system_attrs(study._study_id)
    wanted = stored.get(WANTED)
    return wanted if isinstance(wanted, int) else None


def write_wanted(study: Study, trials: int | None) -> None:
    """Keeps how many trials a command asks for; None leaves it to the study file again."""
    if wanted_trials(study) != trials:
        study._storage.set_study_system_attr(study._study_id, WANTED, trials)
