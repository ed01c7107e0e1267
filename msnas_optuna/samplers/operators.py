"""Crossover and mutation of encoders and of utilisations: pure functions of parents and chance.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1,
lines 5-7: CrossoverEncoder, MutationEncoder, CrossoverFeatureStride, MutationFeatureStride and
Select(children, C).

Symbols: N mixed blocks, a and b parents, C the budget.

They vary genes blindly and drop what is not valid or outside C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeVar

import numpy as np

from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STRIDES, Architecture
from msnas_optuna.spaces.base import FeasibleSet

_G = TypeVar("_G", float, int)


Operator = Callable[..., Architecture | None]
"""(parents..., rng, feasible) -> a feasible child that is none of its parents, or None."""


def bounded_tries(total: int, wanted: int) -> int:
    """Uniform draws after which one of `wanted` among `total` has come, but for odds of e^-40."""
    return ceil(40 * total / wanted)


# The paper's operators: vary blindly, then Select(children, C). One call is one attempt; the
# caller counts the M attempts.


def rejecting_crossover_encoder(
    a: Architecture,
    b: Architecture,
    *,
    feasible: FeasibleSet[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """The blocks of a up to a random one, then those of b, with the utilisation of a."""
    child = Architecture(_cut(a.strides, b.strides, rng), a.feature_strides)
    return _select(child, (a, b), feasible)


def rejecting_mutate_encoder(
    a: Architecture,
    *,
    probability: float,
    feasible: FeasibleSet[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """Each block of a keeps its stride or, with a probability, gets a random one."""
    child = Architecture(_reset(a.strides, STRIDES, probability, rng), a.feature_strides)
    return _select(child, (a,), feasible)


def rejecting_crossover_feature_strides(
    a: Architecture,
    b: Architecture,
    *,
    feasible: FeasibleSet[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """The encoder of a; the utilisation of a up to a random group, then that of b."""
    child = Architecture(a.strides, _cut(a.feature_strides, b.feature_strides, rng))
    return _select(child, (a, b), feasible)


def rejecting_mutate_feature_strides(
    a: Architecture,
    *,
    probability: float,
    feasible: FeasibleSet[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """The encoder of a; each feature stride is kept or, with a probability, random."""
    utilisation = _reset(a.feature_strides, FEATURE_STRIDES, probability, rng)
    return _select(Architecture(a.strides, utilisation), (a,), feasible)


def _select(
    child: Architecture, parents: Sequence[Architecture], feasible: FeasibleSet[Architecture]
) -> Architecture | None:
    return child if child not in parents and feasible.violation(child) is None else None


def _cut(x: tuple[_G, ...], y: tuple[_G, ...], rng: np.random.Generator) -> tuple[_G, ...]:
    cut = int(rng.integers(1, len(x)))
    return x[:cut] + y[cut:]


def _reset(
    genes: Sequence[_G], choices: Sequence[_G], probability: float, rng: np.random.Generator
) -> tuple[_G, ...]:
    drawn = rng.integers(len(choices), size=len(genes)).tolist()
    reset = rng.random(len(genes)) < probability
    return tuple(choices[d] if r else g for g, d, r in zip(genes, drawn, reset, strict=True))
