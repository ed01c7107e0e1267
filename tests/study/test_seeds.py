from __future__ import annotations

import pytest

from msnas_optuna.study.seeds import Trainings


def test_mean_deviation_and_standard_error():
    found = Trainings({0: 0.30, 1: 0.32, 2: 0.37})
    assert found.mean == pytest.approx(0.33)
    assert found.deviation == pytest.approx(0.0360555, abs=1e-7)  # numpy.std(ddof=1)
    assert found.error == pytest.approx(0.0208167, abs=1e-7)  # scipy.stats.sem


def test_one_training_has_no_error_and_a_difference_none():
    one, three = Trainings({0: 0.3}), Trainings({0: 0.30, 1: 0.32, 2: 0.37})
    assert (one.deviation, one.error) == (None, None)
    assert one.ahead_of(three) == (pytest.approx(-0.03), None)
    assert three.ahead_of(three) == (0, pytest.approx(2**0.5 * 0.0208167, abs=1e-7))
