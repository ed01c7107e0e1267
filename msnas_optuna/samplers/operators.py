"""Crossover and mutation of encoders and of utilisations: pure functions of parents and chance.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1,
lines 5-7: CrossoverEncoder, MutationEncoder, CrossoverFeatureStride, MutationFeatureStride and
Select(children, C).

Symbols: N mixed blocks, a and b parents, C the budget.

The exact operators draw among the feasible children alone. The rejecting ones vary genes blindly,
as the paper does, and drop what is not valid or outside C; nearly all children are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, N_GROUPS, STRIDES, Architecture
from msnas_optuna.spaces.base import FeasibleSet

_FREE: Final = (None,) * N_GROUPS

_G = TypeVar("_G", float, int)


class ConditionalSet(FeasibleSet[Architecture], Protocol):
    """A feasible set that draws free genes conditionally on fixed ones."""

    def complete(
        self,
        rng: np.random.Generator,
        strides: Sequence[float | None],
        *,
        feature_strides: Sequence[int | None],
    ) -> Architecture | None:
        """Draws the free genes (None) uniformly; None where nothing feasible is left."""

    def count_completions(
        self, strides: Sequence[float | None], feature_strides: Sequence[int | None]
    ) -> int:
        """The exact number of feasible architectures with the fixed genes."""


Operator = Callable[..., Architecture | None]
"""(parents..., rng, feasible) -> a feasible child that is none of its parents, or None."""


def bounded_tries(total: int, wanted: int) -> int:
    """Uniform draws after which one of `wanted` among `total` has come, but for odds of e^-40."""
    return ceil(40 * total / wanted)


# Exact operators


def crossover_encoder(
    a: Architecture, b: Architecture, *, feasible: ConditionalSet, rng: np.random.Generator
) -> Architecture | None:
    """Joins the first blocks of a to the last blocks of b where their absolute strides meet.

    Keeps the utilisation of a or b where one fits at some joint, else draws it anew.

    Returns:
        A feasible child whose encoder is that of neither parent, or None where no joint has one.
    """
    encoders = _shuffled(_joined(a, b), rng)
    for strides in encoders:
        for s in _shuffled([a.feature_strides, b.feature_strides], rng):
            child = Architecture(strides, s)
            if feasible.violation(child) is None:
                return child
    for strides in encoders:
        redrawn = feasible.complete(rng, strides, feature_strides=_FREE)
        if redrawn is not None:
            return redrawn
    return None


def _joined(a: Architecture, b: Architecture) -> list[tuple[float, ...]]:
    meets = [x == y for x, y in zip(a.absolute_strides, b.absolute_strides, strict=True)]
    encoders = {a.strides[:i] + b.strides[i:] for i, m in enumerate(meets, start=1) if m}
    return sorted(encoders - {a.strides, b.strides})


def mutate_encoder(
    a: Architecture, *, window: int, feasible: ConditionalSet, rng: np.random.Generator
) -> Architecture | None:
    """Draws a window of adjacent blocks anew, given all other blocks.

    Keeps the utilisation where some window has another encoder that fits it, else draws it anew.

    Args:
        a: a feasible architecture.
        window: number of adjacent blocks.
        feasible: what the child must belong to.
        rng: source of chance.

    Returns:
        A feasible child with another encoder, or None where no window has one.
    """
    n = len(a.strides)
    length = min(window, n)
    starts = rng.permutation(n - length + 1).tolist()
    for feature_strides in (a.feature_strides, _FREE):
        for start in starts:
            strides = (*a.strides[:start], *(None,) * length, *a.strides[start + length :])
            child = _other_encoder(a, strides, feature_strides, feasible=feasible, rng=rng)
            if child is not None:
                return child
    return None


def _other_encoder(
    a: Architecture,
    strides: Sequence[float | None],
    feature_strides: Sequence[int | None],
    *,
    feasible: ConditionalSet,
    rng: np.random.Generator,
) -> Architecture | None:
    """A uniform completion whose encoder is not that of a."""
    total = feasible.count_completions(strides, feature_strides)
    others = total - feasible.count_completions(a.strides, feature_strides)
    if others == 0:
        return None
    for _ in range(bounded_tries(total, others)):
        child = feasible.complete(rng, strides, feature_strides=feature_strides)
        if child is not None and child.strides != a.strides:
            return child
    return None


def crossover_feature_strides(
    a: Architecture,
    b: Architecture,
    *,
    feasible: FeasibleSet[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """The encoder of a with a utilisation that follows one parent up to a group, then the other.

    Returns:
        A feasible child other than a and b, or None where no cut has one.
    """
    s, t = a.feature_strides, b.feature_strides
    cuts = {s[:g] + t[g:] for g in range(N_GROUPS)} | {t[:g] + s[g:] for g in range(N_GROUPS)}
    for utilisation in _shuffled(sorted(cuts), rng):
        child = Architecture(a.strides, utilisation)
        if child not in (a, b) and feasible.violation(child) is None:
            return child
    return None


def mutate_feature_strides(
    a: Architecture, *, feasible: ConditionalSet, rng: np.random.Generator
) -> Architecture | None:
    """The encoder of a with another utilisation, uniform over those that fit it.

    Returns:
        A feasible child other than a, or None where the encoder fits no other utilisation.
    """
    total = feasible.count_completions(a.strides, _FREE)
    if total <= 1:
        return None
    for _ in range(bounded_tries(total, total - 1)):
        child = feasible.complete(rng, a.strides, feature_strides=_FREE)
        if child is not None and child != a:
            return child
    return None


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


def _shuffled(items: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items)).tolist()]
