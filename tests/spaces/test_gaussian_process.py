from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.gaussian_process import LENGTHS, NOISES, GaussianProcess
from msnas_optuna.spaces.lattice import Lattice

SPACE = MSNASSpace(5)


def drawn(n: int, seed: int = 0):
    return Lattice(SPACE).sample(np.random.default_rng(seed), n)


def differing(first, second) -> int:
    pairs = zip(SPACE.genes(first), SPACE.genes(second), strict=True)
    return sum(a != b for a, b in pairs)


def covariance(first, second, length: float) -> np.ndarray:
    return np.array([[math.exp(-differing(a, b) / length) for b in second] for a in first])


def closed_form(known, values, length: float, noise: float):
    """Rasmussen and Williams (2.25), (5.8), with mean and scale of largest likelihood."""
    c = covariance(known, known, length) + noise * np.eye(len(known))
    inverse, ones, n = np.linalg.inv(c), np.ones(len(known)), len(known)
    mean = (ones @ inverse @ values) / (ones @ inverse @ ones)
    residual = values - mean
    scale = residual @ inverse @ residual / n
    likelihood = -(n * math.log(scale) + np.linalg.slogdet(c)[1]) / 2
    return likelihood, lambda at: mean + covariance(at, known, length) @ inverse @ residual


def test_it_is_the_closed_form_at_the_best_of_its_hyperparameters():
    known, at = drawn(25), drawn(6, seed=1)
    values = np.random.default_rng(2).normal([sum(SPACE.genes(a)) for a in known], 4.0)
    model = GaussianProcess(SPACE, known, values)
    pairs = product(LENGTHS, NOISES)
    forms = {pair: closed_form(known, values, *pair) for pair in pairs}
    best = max(forms, key=lambda pair: forms[pair][0])
    assert (model.length, model.noise) == best
    assert model.log_likelihood == pytest.approx(forms[best][0])
    np.testing.assert_allclose(model.mean(at), forms[best][1](at), rtol=1e-8)


def test_values_without_noise_are_kept_and_noise_alone_is_averaged():
    known = list(dict.fromkeys(drawn(60)))
    smooth = np.array([sum(math.log2(s) for s in a.feature_strides) for a in known])
    np.testing.assert_allclose(
        GaussianProcess(SPACE, known, smooth).mean(known), smooth, atol=0.05
    )
    noise = np.random.default_rng(3).standard_normal(len(known))
    assert GaussianProcess(SPACE, known, noise).mean(known).std() < noise.std() / 2


def test_it_ranks_better_than_the_noisy_values_that_it_is_given():
    known = list(dict.fromkeys(drawn(150)))
    true = np.array([sum(math.log2(s) for s in SPACE.genes(a)) for a in known])
    noisy = true + np.random.default_rng(4).normal(0, true.std(), len(true))
    smoothed = GaussianProcess(SPACE, known, noisy).mean(known)
    assert np.corrcoef(smoothed, true)[0, 1] > np.corrcoef(noisy, true)[0, 1] + 0.1


def test_a_repeated_measurement_counts_twice():
    (one, other) = dict.fromkeys(drawn(2))
    model = GaussianProcess(SPACE, [one, one, other], [0.2, 0.4, 0.9])
    assert model.mean([one])[0] == pytest.approx(0.3, abs=0.2)


@pytest.mark.parametrize("values", [[0.3], [0.3] * 4])
def test_equal_values_are_their_own_mean(values):
    model = GaussianProcess(SPACE, drawn(len(values)), values)
    np.testing.assert_allclose(model.mean(drawn(3, seed=5)), 0.3)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="got 1 values for 2 architectures"):
        GaussianProcess(SPACE, drawn(2), [0.1])
    with pytest.raises(ValueError, match="needs a finite value"):
        GaussianProcess(SPACE, drawn(1), [math.nan])
