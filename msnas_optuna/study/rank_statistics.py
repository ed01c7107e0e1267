"""Agreement of a score of architectures with their true AP, and how far noise limits it.

Kendall, "A New Measure of Rank Correlation", 1938 (tau-b where there are ties); Spearman, "The
Proof and Measurement of Association between Two Things", 1904. Normal approximations: Greiner's
tau = 2/pi asin(r), Pearson's rho = 6/pi asin(r / 2), and the variance of tau of Esscher, "On a
Method of Determining Correlation from the Ranks of the Variates", 1924. Reliability: Shrout and
Fleiss, "Intraclass Correlations", 1979 (one-way). n architectures, m trainings of each with other
seeds, B replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import kendalltau, spearmanr

_Floats = NDArray[np.float64]
_Statistic = Callable[..., _Floats]  # of score, truth and counts, see `regret`

CONFIDENCE: Final = 0.95
REPLICATES: Final = 2000
KS: Final = (1, 5, 10)


class Estimate(NamedTuple):
    """A number with the interval that holds it with a confidence of `CONFIDENCE`."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """A score against the truth; None where a ranking is all ties, or too short."""

    n: int
    tau: Estimate | None  # Kendall's tau-b, -1..1
    rho: Estimate | None  # Spearman's, -1..1
    tau_upper_score: Estimate | None  # among the better half by the score, where searches decide
    tau_upper_truth: Estimate | None  # among the better half by the truth
    regret: dict[int, Estimate]  # k -> AP in [0, 1], see `regret`


def agreement(score: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> Agreement:
    """Compares a score [n] with the truth [n], the mean over trainings; larger is better in both.

    Intervals are percentiles over bootstrap samples of the architectures, drawn by `seed`. See
    `better_half` for the halves.

    Raises:
        ValueError: the lengths differ, there is none, or a number is not finite.
    """
    x, y = np.asarray(score, dtype=float), np.asarray(truth, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f"score and truth need one number each, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("score and truth must be finite; leave out what has no value")
    by_score, by_truth = better_half(x), better_half(y)
    return Agreement(
        n=x.size,
        tau=_correlation(_tau, x, y, seed),
        rho=_correlation(_rho, x, y, seed),
        tau_upper_score=_correlation(_tau, x[by_score], y[by_score], seed),
        tau_upper_truth=_correlation(_tau, x[by_truth], y[by_truth], seed),
        regret={k: _estimate(partial(regret, k=k), x, y, seed) for k in KS if k <= x.size},
    )


def better_half(values: ArrayLike) -> NDArray[np.bool_]:
    """Those not below the median, [n]."""
    numbers = np.asarray(values, dtype=float)
    return numbers >= np.median(numbers)  # type: ignore[no-any-return]


def regret(score: _Floats, truth: _Floats, counts: _Floats | None = None, *, k: int) -> _Floats:
    """AP lost by trusting the score: mean truth of the k truly best less the k best-scored.

    For k = 1: the best truth less that of the best-scored. Never negative. Among equal scores
    each has the same chance, and the mean over these chances counts. Of noisy truth the k best
    are overestimated, and so is the regret, by as much for every score.

    Args:
        score: [n].
        truth: [n].
        counts: [B, n], how often a sample holds each architecture; None is once each.
        k: 1..n.

    Returns:
        [B], or [1].
    """
    w = np.ones((1, len(score))) if counts is None else counts
    equal = (score[:, None] == score).astype(float)  # [n, n]
    shared = (w * truth) @ equal / np.maximum(w @ equal, 1)  # [B, n]
    return _mean_of_first(truth + 0 * w, truth, w, k) - _mean_of_first(shared, score, w, k)


def _mean_of_first(values: _Floats, key: _Floats, w: _Floats, k: int) -> _Floats:
    """Mean of `values` over the k with the largest key, [B, n] -> [B]."""
    order = np.argsort(-key, kind="stable")
    w, before = w[:, order], np.cumsum(w[:, order], axis=1) - w[:, order]
    return (np.clip(k - before, 0, w) * values[:, order]).sum(axis=1) / k  # type: ignore[no-any-return]


def _tau(x: _Floats, y: _Floats, counts: _Floats | None = None) -> _Floats:
    """Kendall's tau-b, [1], or of samples that hold each architecture so often, [B, n] -> [B]."""
    if counts is None:
        return np.array([kendalltau(x, y).statistic])
    a, b = (np.sign(np.subtract.outer(v, v)) for v in (x, y))  # [n, n]
    both, first, second = (((counts @ m) * counts).sum(1) for m in (a * b, a * a, b * b))
    return both / np.sqrt(first * second)  # type: ignore[no-any-return]


def _rho(x: _Floats, y: _Floats, counts: _Floats | None = None) -> _Floats:
    """Spearman's rho, likewise."""
    if counts is None:
        return np.array([spearmanr(x, y).statistic])
    p, q = (counts @ np.sign(np.subtract.outer(v, v)) for v in (x, y))  # centered ranks [B, n]
    both, first, second = ((counts * m).sum(1) for m in (p * q, p * p, q * q))
    return both / np.sqrt(first * second)  # type: ignore[no-any-return]


def _correlation(statistic: _Statistic, x: _Floats, y: _Floats, seed: int) -> Estimate | None:
    """A correlation with its bootstrap interval; None where one of the two is all ties."""
    return None if min(len({*x}), len({*y})) < 2 else _estimate(statistic, x, y, seed)


def _estimate(statistic: _Statistic, x: _Floats, y: _Floats, seed: int) -> Estimate:
    """A statistic with its bootstrap interval."""
    rng, n = np.random.default_rng(seed), len(x)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=REPLICATES).astype(float)
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):  # a sample may be all ties
        low, high = np.nanquantile(statistic(x, y, counts), [tail, 1 - tail])
    return Estimate(float(statistic(x, y)[0]), float(low), float(high))


# ------------------------------------------------------------------ noise of the truth


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of AP: of the architectures' expectations, and of a training around its own."""

    between: float
    within: float

    def reliability(self, seeds: float) -> float:
        """Share, 0..1, of the variance of a mean over so many trainings that is not noise."""
        total = self.between + self.within / seeds
        return self.between / total if total else 1.0


def variance_components(truth: Sequence[Sequence[float]]) -> VarianceComponents | None:
    """The components of a one-way model, from trainings [n][m], where m may differ.

    None unless there are two architectures and one of them is trained twice.
    """
    counts = np.array([len(values) for values in truth])
    n, total = len(truth), counts.sum()
    if n < 2 or total == n or not counts.all():
        return None
    means = np.array([np.mean(values) for values in truth])
    squares = sum(
        float(np.square(np.subtract(v, m)).sum()) for v, m in zip(truth, means, strict=True)
    )
    within = squares / (total - n)
    grand = (counts * means).sum() / total
    among = float((counts * np.square(means - grand)).sum()) / (n - 1)
    typical = (total - np.square(counts).sum() / total) / (n - 1)  # m where all are equal
    return VarianceComponents(max(0.0, float((among - within) / typical)), float(within))


def harmonic_seeds(truth: Sequence[Sequence[float]]) -> float:
    """Trainings of an architecture: the harmonic mean, as noise falls with their inverse."""
    return 1 / float(np.mean([1 / len(values) for values in truth]))


class Ceiling(NamedTuple):
    """The agreement that a perfect score, the expected AP, has with a truth of some noise."""

    tau: float
    rho: float


def ceiling(reliability: float) -> Ceiling:
    """The ceiling of a truth of a reliability in 0..1, both normal."""
    r = math.sqrt(reliability)
    return Ceiling(2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2))


def split_half_reliability(truth: Sequence[Sequence[float]]) -> float | None:
    """Reliability of the mean over m trainings, from tau between disjoint sets of them.

    Kendall's tau between the means over two parts of the m seeds, averaged over all ways to part
    them in (near) halves, is that of two normals whose reliabilities follow from that of a single
    training by the Spearman-Brown formula. m is the least number of trainings. None unless it is 2
    or more and there is anything to rank.
    """
    m = min(map(len, truth), default=0)
    if m < 2 or len(truth) < 2:
        return None
    runs = np.array([values[:m] for values in truth], dtype=float)  # [n, m]
    k, taus = m // 2, []
    for half in combinations(range(m), k):
        rest = [i for i in range(m) if i not in half]
        taus.append(kendalltau(runs[:, half].mean(1), runs[:, rest].mean(1)).statistic)
    correlation = math.sin(math.pi / 2 * float(np.mean(taus)))
    if math.isnan(correlation):
        return None

    def stepped(single: float, seeds: int) -> float:
        return seeds * single / (1 + (seeds - 1) * single)

    def excess(single: float) -> float:
        return math.sqrt(stepped(single, k) * stepped(single, m - k)) - correlation

    return 0.0 if correlation <= 0 else stepped(float(brentq(excess, 0, 1)), m)


# ------------------------------------------------------------------ planning


class Plan(NamedTuple):
    """What an interval of tau of a given half width takes."""

    seeds: int  # trainings of an architecture
    tau: float  # to be expected with so many
    ceiling: float  # of tau
    architectures: int
    trainings: int


def plans(
    tau: float, half_width: float, noise: VarianceComponents, *, seeds: float, among: Sequence[int]
) -> list[Plan]:
    """What an interval takes with other numbers of trainings of each architecture.

    Args:
        tau: measured with the mean over `seeds` trainings.
        half_width: of the interval around tau, 0..1.
        noise: of the trainings.
        seeds: trainings of an architecture behind tau.
        among: numbers of trainings to plan for.
    """
    found = []
    for m in among:
        known = noise.reliability(seeds)
        gain = noise.reliability(m) / known if known else 1.0
        correlation = min(1.0, abs(math.sin(math.pi / 2 * tau)) * math.sqrt(gain))
        expected = math.copysign(2 / math.pi * math.asin(correlation), tau)
        n = architectures_for(expected, half_width)
        found.append(Plan(m, expected, ceiling(noise.reliability(m)).tau, n, n * m))
    return found


def architectures_for(tau: float, half_width: float) -> int:
    """How many architectures give an interval around tau of this half width, both normal."""
    if not 0 < half_width < 1:
        raise ValueError(f"half_width must lie in 0..1, got {half_width}")
    deviation = half_width / float(ndtri((1 + CONFIDENCE) / 2))
    a = 1 - tau * tau
    b = 1 / 9 - (2 / math.pi * math.asin(math.sin(math.pi / 2 * tau) / 2)) ** 2
    # Esscher: deviation^2 = 2 / (n (n - 1)) * (a + 2 (n - 2) b), a quadratic in n
    v = deviation**2
    half = (v + 4 * b) / 2
    n = (half + math.sqrt(max(0.0, half * half + v * (2 * a - 8 * b)))) / v
    return max(3, math.ceil(n))
