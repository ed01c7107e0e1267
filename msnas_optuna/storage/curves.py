"""Losses of training runs, kept with the study in as many numbers as a curve can show.

They are system attributes, because optuna-dashboard lists all numbers of the user attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from optuna.study import Study

from msnas_optuna.storage.optuna_private import set_system_attr, system_attrs
from msnas_optuna.storage.records import LOSSES

POINTS: Final = 150  # of a curve


@dataclass(frozen=True)
class Curve:
    """The course of a training run, divided into parts."""

    steps: tuple[int, ...]  # last one of each part, from 1
    losses: tuple[float, ...]  # mean of each part

    @classmethod
    def of(cls, losses: Sequence[float]) -> Curve:
        """Averages the losses of every step over at most `POINTS` parts of equal length."""
        length = math.ceil(len(losses) / POINTS)
        parts = [losses[i : i + length] for i in range(0, len(losses), length or 1)]
        ends = [min(length * (i + 1), len(losses)) for i in range(len(parts))]
        means = (float(f"{math.fsum(part) / len(part):.4g}") for part in parts)
        return cls(tuple(ends), tuple(means))


def write_curve(study: Study, run: str, losses: Sequence[float]) -> None:
    """Stores the losses of every step of "supernet" or another run; none changes nothing."""
    curve = Curve.of(losses)
    if losses and read_curves(study).get(run) != curve:
        stored = {name: list(values) for name, values in vars(curve).items()}
        set_system_attr(study, f"{LOSSES}{run}", stored)


def read_curves(study: Study) -> dict[str, Curve]:
    """The stored courses by the name of the run: supernet, trials, others."""
    found = {
        key.removeprefix(LOSSES): Curve(tuple(value["steps"]), tuple(value["losses"]))
        for key, value in system_attrs(study).items()
        if key.startswith(LOSSES)
    }
    runs = sorted(found, key=lambda run: (run != "supernet", run[:5] != "trial"))
    return {run: found[run] for run in runs}
