"""Rank fidelity in numbers: each score against the truth, and what the truth can tell at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Final

from msnas_optuna.report.table import Column, record
from msnas_optuna.study.rank import Ranking
from msnas_optuna.study.rank_statistics import (
    Agreement,
    Ceiling,
    Estimate,
    Plan,
    VarianceComponents,
    agreement,
    better_half,
    ceiling,
    harmonic_seeds,
    plans,
    split_half_reliability,
    variance_components,
)

SEEDS: Final = (1, 2, 3, 5)  # trainings of an architecture that plans are made for


@dataclass(frozen=True)
class Row:
    """A score against the truth."""

    score: str
    found: Agreement | None  # None where nothing is measured both ways
    ceiling: float | None  # of tau in its better half; None where it is unknown


@dataclass(frozen=True, eq=False)
class RankReport:
    """A ranking in numbers; a plan is for an interval of this half width of tau."""

    ranking: Ranking[Any]
    half_width: float = 0.1
    seed: int = 0  # of the intervals

    @cached_property
    def noise(self) -> VarianceComponents | None:
        """Of the trainings; None until one architecture is trained twice."""
        return variance_components(self.ranking.trained)

    @property
    def reliability(self) -> float | None:
        """Share of the variance of the truth, 0..1, that is not noise."""
        return _reliability(self.ranking.trained)

    @property
    def ceiling(self) -> Ceiling | None:
        """The agreement of a perfect score with this truth, from the variance components."""
        return None if self.reliability is None else ceiling(self.reliability)

    @cached_property
    def halves(self) -> Ceiling | None:
        """The same from the agreement between the seeds; None until each is trained twice."""
        found = split_half_reliability(self.ranking.trained)
        return None if found is None else ceiling(found)

    @cached_property
    def rows(self) -> list[Row]:
        """Each score, in the order of `Ranking.scores`."""
        return [self._row(score) for score in self.ranking.scores]

    @cached_property
    def widest(self) -> Row | None:
        """The score whose tau is nearest to 0, which has the widest interval."""
        known = [row for row in self.rows if row.found is not None and row.found.tau is not None]
        return min(known, key=_size, default=None)

    @cached_property
    def plans(self) -> list[Plan]:
        """What the interval takes for the `widest`, so that it is enough for all."""
        row = self.widest
        if row is None or row.found is None or row.found.tau is None or self.noise is None:
            return []
        seeds, tau = harmonic_seeds(self.ranking.trained), row.found.tau.value
        return plans(tau, self.half_width, self.noise, seeds=seeds, among=SEEDS)

    def as_json(self) -> dict[str, Any]:
        """All of it, in types that JSON has; an interval is [value, low, high]."""
        return {
            "sample": len(self.ranking.sample),
            "trained": len(self.ranking.trained),
            "trainings": sum(map(len, self.ranking.trained)),
            "scores": [record([SCORE, *CORRELATIONS, *DECISIONS], row) for row in self.rows],
            "reliability": self.reliability,
            "ceiling": self.ceiling and self.ceiling._asdict(),
            "split_half_ceiling": self.halves and self.halves._asdict(),
            "half_width": self.half_width,
            "plans": [plan._asdict() for plan in self.plans],
        }

    def _row(self, score: str) -> Row:
        pairs = self.ranking.pairs(score).values()
        if not pairs:
            return Row(score, None, None)
        values, truth = zip(*pairs, strict=True)
        found = agreement(values, [fmean(runs) for runs in truth], seed=self.seed)
        upper = [truth[i] for i in better_half(values).nonzero()[0]]
        within = _reliability(upper)
        return Row(score, found, None if within is None else ceiling(within).tau)


def _size(row: Row) -> float:
    assert row.found is not None
    assert row.found.tau is not None
    return abs(row.found.tau.value)


def _reliability(truth: Sequence[Sequence[float]]) -> float | None:
    noise = variance_components(truth)
    return None if noise is None else noise.reliability(harmonic_seeds(truth))


# ---------------------------------------------------------------------- the table


def interval(estimate: Estimate) -> str:
    """An estimate for people: "0.45 [0.31, 0.57]"."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*estimate)


def points(estimate: Estimate) -> str:
    """An estimate of an AP in [0, 1], in mAP: "1.2 [0.3, 2.5]"."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * ap for ap in estimate))


def _field(name: str) -> Any:
    return lambda row: row.found and getattr(row.found, name)


def _regret(k: int) -> Any:
    return lambda row: row.found and row.found.regret.get(k)


SCORE: Final = Column[Row]("score", lambda row: row.score, key="score")

CORRELATIONS: Final[list[Column[Row]]] = [
    Column("n", _field("n"), key="n", right=True),
    Column("Kendall's tau", _field("tau"), interval, key="tau", right=True),
    Column("Spearman's rho", _field("rho"), interval, key="rho", right=True),
]
"""Over the whole sample."""

DECISIONS: Final[list[Column[Row]]] = [
    Column(
        "tau of the\nbetter half",
        _field("tau_upper_score"),
        interval,
        "tau_upper_score",
        right=True,
    ),
    Column("at\nmost", lambda row: row.ceiling, "{:.2f}", "ceiling_upper_score", right=True),
    Column(None, _field("tau_upper_truth"), key="tau_upper_truth"),
    Column("mAP lost,\nbest", _regret(1), points, key="regret_1", right=True),
    Column("mAP lost,\nbest 5", _regret(5), points, key="regret_5", right=True),
    Column(None, _regret(10), key="regret_10"),
]
"""Where a search decides."""


def plan_columns() -> list[Column[Plan]]:
    """The columns of a table of plans."""
    return [
        Column("seeds", lambda plan: plan.seeds, right=True),
        Column("tau", lambda plan: plan.tau, "{:.2f}", right=True),
        Column("ceiling", lambda plan: plan.ceiling, "{:.2f}", right=True),
        Column("architectures", lambda plan: plan.architectures, "{:,}", right=True),
        Column("trainings", lambda plan: plan.trainings, "{:,}", right=True),
    ]
