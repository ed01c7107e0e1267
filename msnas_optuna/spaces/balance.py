"""Weights of genes under which every choice of a gene is drawn equally often.

Uniform over architectures is not uniform over the choices of a gene: a rule that leaves more
architectures behind one choice makes it the more frequent. Iterative proportional fitting (Deming
and Stephan, 1940) scales the weights of each choice by wanted over present share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, FeasibleSet, GeneValues

ROUNDS: Final = 40
DRAWS: Final = 4000  # of a round: shares are known to 0.01


def balanced_weights(feasible: FeasibleSet[A], genes: slice) -> GeneValues:
    """For each gene of the space a weight of each choice; those outside of `genes` all weigh 1.

    The choices of a gene that occur get equal shares, as nearly as the rules of the space allow;
    the fit is by draws of a fixed seed, so that it is the same everywhere.
    """
    space, rng = feasible.space, np.random.default_rng(0)
    choices = [distribution.choices for distribution in space.distributions.values()]
    positions = range(len(choices))[genes]
    weights = [dict.fromkeys(own, 1.0) for own in choices]
    for _ in range(ROUNDS):
        draw = feasible.weighted(weights)
        drawn = [space.genes(a) for _ in range(DRAWS) if (a := draw.sample(rng)) is not None]
        for position in positions:
            own = choices[position]
            shares = _shares([genes[position] for genes in drawn], own)
            occurring = shares > 0
            scale = np.where(occurring, 1 / occurring.sum() / np.where(occurring, shares, 1), 1)
            fitted = np.sqrt(scale) * [weights[position][choice] for choice in own]
            weights[position] = dict(zip(own, (fitted / fitted.max()).tolist(), strict=True))
    return weights


def _shares(drawn: Sequence[Any], choices: Sequence[Any]) -> NDArray[np.float64]:
    """How often each choice was drawn, [number of choices], summing to 1."""
    counts = np.array([drawn.count(choice) for choice in choices], np.float64)
    return counts / len(drawn)
