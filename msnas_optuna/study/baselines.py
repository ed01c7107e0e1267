"""The hand-made detectors that a search is compared with: which, what they cost, what they reach.

Numbers are 1e9 multiply-adds of what the budget limits, 1e6 parameters, COCO AP in [0, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from msnas_optuna.methods.base import BaselineDetector
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.study.config import BASELINE
from msnas_optuna.study.seeds import Trainings
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView


def baseline_detector(setting: Setting, name: str) -> BaselineDetector:
    """One of the method's baselines, for the budget of the study; see there."""
    section, target = setting.config.space, setting.target
    return setting.method.baseline_detector(name, section, setting.cost, target=target)


def chosen_baselines(
    setting: Setting, only: Sequence[str] = (), *, full_size: bool = False
) -> list[str]:
    """The names to train: `only` these, or those of the study's budget and its hand-made path.

    `full_size` adds those that are as published, whatever they cost. Of those that nobody has
    asked for by name, the ones that cannot be scaled to the budget are left out with a warning.

    Raises:
        ValueError: there is none of that name.
        InvalidArchitectureError: it cannot be scaled to the budget.
    """
    by_hand, known = setting.method.baseline_stage, setting.method.baselines
    for name in only:
        if name not in (by_hand, *known):
            raise ValueError(
                f"--only must be one of {', '.join([by_hand, *known])}, got {name}; correct it"
            )
        if name != by_hand:
            baseline_detector(setting, name)
    if only:
        return list(dict.fromkeys(only))
    chosen = [by_hand]
    for name in known:
        try:
            detector = baseline_detector(setting, name)
        except InvalidArchitectureError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
            continue
        if detector.scaled or full_size:
            chosen.append(name)
    return chosen


@dataclass(frozen=True)
class Comparison:
    """A trained detector beside the best that the search has found."""

    name: str
    gflops: float | None
    mparams: float | None
    trainings: Trainings
    ahead: tuple[float, float | None] | None  # of the best, with its standard error


def compared(setting: Setting) -> list[Comparison]:
    """The best retrained architecture, then the baselines as far as they are trained.

    The best has the highest mean AP of those that the search has proposed and are retrained.
    """
    view = StudyView.load(setting)
    trained = [r for r in view.results if r.trainings and r.architecture != setting.baseline]
    best = max(trained, key=lambda r: r.standalone_ap or 0.0, default=None)
    rows = [] if best is None else [(best.name, view.retrained[best.architecture])]
    if setting.baseline in view.retrained:
        rows.append((setting.method.baseline, view.retrained[setting.baseline]))
    found = {r.architecture: r for r in StudyView.of_stage(setting, BASELINE).results}
    rows += [(name, found[name]) for name in setting.method.baselines if name in found]
    against = None if best is None else best.trainings
    return [
        Comparison(
            name,
            result.metric("gflops"),
            result.metric("mparams"),
            result.by_seed,
            None if against is None or i == 0 else result.by_seed.ahead_of(against),
        )
        for i, (name, result) in enumerate(rows)
    ]
