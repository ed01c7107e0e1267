from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.balance import balanced_weights
from msnas_optuna.spaces.lattice import Lattice

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
WINDOW = (int(0.97 * TARGET), int(1.03 * TARGET))


def shares(draw, position: int, rng: np.random.Generator, n: int = 4000) -> dict[float, float]:
    counts = Counter(SPACE.genes(draw(rng))[position] for _ in range(n))
    return {choice: count / n for choice, count in counts.items()}


@pytest.mark.parametrize(
    ("feasible", "most"),
    [(Lattice(SPACE), 0.07), (Lattice(SPACE, COST, window=WINDOW), 0.2)],  # no window allows less
)
def test_candidates_of_a_block_are_drawn_equally_often_where_uniform_paths_are_not(feasible, most):
    encoder = SPACE.parts["encoder"]
    weights = balanced_weights(feasible, encoder)
    rng = np.random.default_rng(1)
    draw = feasible.weighted(weights).sample
    before, after = ([shares(way, i, rng) for i in range(7)] for way in (feasible.sample, draw))

    def imbalance(found: list[dict[float, float]]) -> float:
        return max(max(own.values()) - min(own.values()) for own in found)

    assert imbalance(before) > 1.5 * most
    assert imbalance(after) < most
    assert all({*a} == {*b} for a, b in zip(after, before, strict=True))


def test_genes_outside_keep_their_weights_and_the_fit_is_reproducible():
    feasible = Lattice(MSNASSpace(5))
    first, second = (balanced_weights(feasible, slice(0, 5)) for _ in range(2))
    assert first == second
    assert all({*own.values()} == {1.0} for own in first[5:])
