"""Closed forms, scipy, and simulations whose true values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import kendalltau, spearmanr

from msnas_optuna.study import rank_statistics
from msnas_optuna.study.rank_statistics import (
    VarianceComponents,
    agreement,
    architectures_for,
    ceiling,
    plans,
    regret,
    split_half_reliability,
    variance_components,
)

APS = st.integers(0, 8).map(lambda i: i / 8)  # with ties


def resampled(values, counts) -> np.ndarray:
    return np.repeat(values, counts)


@given(st.lists(st.tuples(APS, APS, st.integers(0, 3)), min_size=3, max_size=12))
def test_replicates_are_what_scipy_says_of_the_repeated_architectures(rows):
    x, y, counts = map(np.array, zip(*rows, strict=True))
    often = [resampled(v, counts) for v in (x, y)]
    if min(len({*v}) for v in often) < 2:
        return
    weights = counts[None].astype(float)
    tau, rho = (f(x, y, weights)[0] for f in (rank_statistics._tau, rank_statistics._rho))
    assert tau == pytest.approx(kendalltau(*often).statistic)
    assert rho == pytest.approx(spearmanr(*often).statistic)
    for k in range(1, counts.sum() + 1):
        once = regret(*often, k=k)
        assert regret(x, y, weights, k=k) == pytest.approx(once)
        assert once >= -1e-12


def test_numbers_of_a_small_example():
    score, truth = [0.1, 0.2, 0.3, 0.4, 0.5], [0.30, 0.10, 0.20, 0.50, 0.40]
    found = agreement(score, truth)
    assert found.n == 5
    assert found.tau.value == pytest.approx(kendalltau(score, truth).statistic) == 0.4
    assert found.rho.value == pytest.approx(spearmanr(score, truth).statistic)
    assert found.tau_upper_score.value == pytest.approx(1 / 3)  # of the last three
    assert found.tau_upper_truth.value == pytest.approx(1 / 3)  # of the 1st, 4th and 5th
    assert found.regret.keys() == {1, 5}
    assert found.regret[1].value == pytest.approx(0.50 - 0.40)
    assert found.regret[5] == pytest.approx((0, 0, 0))
    assert regret(*map(np.array, (score, truth)), k=2) == pytest.approx(0)
    assert agreement(score, truth) == found  # a seed makes it reproducible


def test_equal_scores_lose_what_a_draw_among_them_loses():
    score, truth = np.array([0.0, 0.0, 0.0, 0.1]), np.array([0.1, 0.3, 0.8, 0.2])
    drawn = [np.mean([0.2, truth[i]]) for i in range(3)]  # the best-scored and one of the others
    assert regret(score, truth, k=2) == pytest.approx(np.mean([0.8, 0.3]) - np.mean(drawn))


def test_a_score_that_is_all_ties_has_no_tau_but_a_regret():
    found = agreement([0.0] * 4, [0.1, 0.2, 0.3, 0.4])
    assert found.tau is found.rho is found.tau_upper_score is None
    assert found.regret[1].value == pytest.approx(0.4 - 0.25)
    assert agreement([0.3], [0.2]).tau is None


def test_what_has_no_value_is_refused():
    with pytest.raises(ValueError, match="must be finite; leave out"):
        agreement([0.1, math.nan], [0.1, 0.2])
    with pytest.raises(ValueError, match="need one number each"):
        agreement([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="half_width must lie in"):
        architectures_for(0.5, 0)


def normals(rng, n: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    x, noise = rng.standard_normal((2, n))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def test_intervals_hold_the_true_tau_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(rank_statistics, "REPLICATES", 400)
    rng, correlation = np.random.default_rng(0), 0.7
    true = 2 / math.pi * math.asin(correlation)
    held = 0
    for seed in range(200):
        x, y = normals(rng, 60, correlation)
        found = rank_statistics._correlation(rank_statistics._tau, x, y, seed)
        held += found.low <= true <= found.high
    assert 0.925 <= held / 200 <= 0.985


@pytest.mark.parametrize("tau", [-0.4, 0.0, 0.8])
@pytest.mark.parametrize("half_width", [0.05, 0.3])
def test_no_fewer_architectures_give_the_interval(tau, half_width):
    b = 1 / 9 - 4 / math.pi**2 * math.asin(math.sin(math.pi / 2 * tau) / 2) ** 2

    def width(n: int) -> float:  # of Esscher's variance
        return 1.959964 * math.sqrt(2 / (n * (n - 1)) * (1 - tau**2 + 2 * (n - 2) * b))

    n = architectures_for(tau, half_width)
    assert width(n) <= half_width < width(n - 1)


@pytest.mark.parametrize(("correlation", "half_width"), [(0.0, 0.2), (0.6, 0.1), (0.9, 0.1)])
def test_as_many_architectures_as_planned_give_the_interval(correlation, half_width):
    rng, tau = np.random.default_rng(1), 2 / math.pi * math.asin(correlation)
    n = architectures_for(tau, half_width)
    taus = [kendalltau(*normals(rng, n, correlation)).statistic for _ in range(400)]
    assert np.mean(taus) == pytest.approx(tau, abs=0.02)
    assert 1.96 * np.std(taus) == pytest.approx(half_width, rel=0.12)


def trainings(rng, n: int, seeds: int, *, between: float, within: float):
    expected = math.sqrt(between) * rng.standard_normal(n)
    return expected, expected[:, None] + math.sqrt(within) * rng.standard_normal((n, seeds))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("within", [0.2, 2.0])
def test_a_perfect_score_reaches_the_ceiling_and_no_more(seeds, within):
    rng = np.random.default_rng(2)
    expected, runs = trainings(rng, 2000, seeds, between=1, within=within)
    reachable = ceiling(VarianceComponents(1, within).reliability(seeds))
    assert kendalltau(expected, runs.mean(1)).statistic == pytest.approx(reachable.tau, abs=0.02)
    assert spearmanr(expected, runs.mean(1)).statistic == pytest.approx(reachable.rho, abs=0.02)


def test_ceilings_at_the_ends():
    assert ceiling(1) == pytest.approx((1, 1))
    assert ceiling(0) == (0, 0)


def test_components_are_those_of_the_trainings():
    rng = np.random.default_rng(3)
    _, runs = trainings(rng, 1500, 3, between=4, within=2)
    ragged = [row[: 1 + i % 3] for i, row in enumerate(runs.tolist())]
    for truth in (runs.tolist(), ragged):
        found = variance_components(truth)
        assert found.between == pytest.approx(4, rel=0.1)
        assert found.within == pytest.approx(2, rel=0.1)


def test_components_of_a_balanced_example():
    # means 2, 4; mean squares: within (2 * 1) / 2 = 1, among 2 * (1 + 1) = 4
    found = variance_components([[1.5, 2.5], [3.5, 4.5]])
    assert found == VarianceComponents(between=pytest.approx(1.75), within=0.5)
    assert found.reliability(2) == pytest.approx(1.75 / 2)
    # means 2, 4, over all 8/3; mean squares 1/2 and 8/3; trainings of an architecture 4/3
    ragged = variance_components([[1.5, 2.5], [4.0]])
    assert ragged == VarianceComponents(between=pytest.approx(1.625), within=0.5)
    assert variance_components([[1.0], [2.0]]) is variance_components([[1.0, 2.0]]) is None
    assert variance_components([[1.0, 2.0], []]) is None
    assert variance_components([[0.5, 0.5]] * 2).reliability(2) == 1  # nothing differs


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_halves_of_the_seeds_tell_the_same_reliability(seeds):
    rng = np.random.default_rng(4)
    _, runs = trainings(rng, 1500, seeds, between=1, within=1)
    known = VarianceComponents(1, 1).reliability(seeds)
    assert split_half_reliability(runs.tolist()) == pytest.approx(known, abs=0.04)


def test_halves_of_two_seeds_in_closed_form():
    runs = [[0.1, 0.2], [0.2, 0.1], [0.3, 0.3], [0.4, 0.5]]
    half = math.sin(math.pi / 2 * kendalltau(*zip(*runs, strict=True)).statistic)
    assert split_half_reliability(runs) == pytest.approx(2 * half / (1 + half))
    assert split_half_reliability([[0.1, 0.2], [0.2, 0.1]]) == 0
    assert split_half_reliability([[0.1], [0.2, 0.3]]) is None
    assert split_half_reliability([[0.1, 0.1], [0.1, 0.1]]) is None


def test_the_order_of_the_seeds_does_not_matter():
    rng = np.random.default_rng(5)
    _, runs = trainings(rng, 8, 4, between=1, within=1)
    mixed = [
        split_half_reliability(runs[:, list(p)].tolist()) for p in ((0, 1, 2, 3), (3, 1, 0, 2))
    ]
    assert mixed[0] == pytest.approx(mixed[1])


def test_a_plan_says_what_other_numbers_of_seeds_take():
    noise, correlation = VarianceComponents(1, 1), 0.8  # of the score with the expected AP
    measured = 2 / math.pi * math.asin(correlation * math.sqrt(noise.reliability(3)))
    one, three = plans(measured, 0.1, noise, seeds=3, among=(1, 3))
    assert three.tau == pytest.approx(measured)
    assert three.architectures == architectures_for(measured, 0.1)
    assert three.trainings == 3 * three.architectures
    assert one.tau == pytest.approx(2 / math.pi * math.asin(correlation * math.sqrt(0.5)))
    assert one.architectures > three.architectures  # a lower tau is less certain
    assert one.trainings < three.trainings
    assert (one.ceiling, three.ceiling) == pytest.approx((1 / 2, 2 / 3))
    assert plans(-measured, 0.1, noise, seeds=3, among=(3,))[0].tau == pytest.approx(-measured)
