"""The AP of one detector over several trainings, which differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Trainings:
    """COCO AP in [0, 1] after training from scratch, of at least one training."""

    values: Mapping[int, float]  # number of the training, which is added to the seed -> AP

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """The standard deviation of one training, from n - 1; None of one alone."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None of one training alone."""
        return None if self.deviation is None else self.deviation / math.sqrt(len(self.values))

    def ahead_of(self, other: Trainings) -> tuple[float, float | None]:
        """The difference of the means, and its standard error; None where one is of one seed."""
        difference = self.mean - other.mean
        if self.error is None or other.error is None:
            return difference, None
        return difference, math.hypot(self.error, other.error)
