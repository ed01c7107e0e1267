from __future__ import annotations

import pytest
from pydantic import ValidationError

from msnas_optuna.training.recipe import Recipe

PAPER = Recipe(
    steps=5000, learning_rate=0.04, optimizer="sgd", schedule="step", warmup=1 / 50
)  # 50 epochs of 100 steps


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.00125), (1, 0.04), (41.9, 0.04), (42, 0.004), (47, 0.0004)]
)
def test_the_paper_s_schedule(epoch, rate):
    """0.00125 -> 0.04 over the first epoch, divided by 10 at epochs 42 and 47 (§4.1)."""
    assert PAPER.rate(int(epoch * 100)) == pytest.approx(rate)


def test_cosine_falls_to_nothing_and_constant_stays():
    cosine = Recipe(steps=100, learning_rate=1.0, schedule="cosine", warmup=0.1)
    rates = [cosine.rate(step) for step in range(100)]
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] < 1e-3
    constant = Recipe(steps=100, learning_rate=1.0, schedule="constant", warmup=0)
    assert {constant.rate(step) for step in range(100)} == {1.0}


@pytest.mark.parametrize(
    "broken", [{"steps": -1}, {"batch_size": 0}, {"learning_rate": 0}, {"optimizer": "adam"}]
)
def test_impossible_values_are_refused(broken):
    with pytest.raises(ValidationError, match=next(iter(broken))):
        Recipe(**{"steps": 10, **broken})
