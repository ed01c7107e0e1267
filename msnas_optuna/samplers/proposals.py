"""Input and output of a proposer: settings, slots, proposals.

Symbols of Algorithm 1: P population size, R random children of an iteration, M attempts at a
child (§4.1: P = 50, 50 children, about 10 random ones). A slot is a place in the sequence of
proposals.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import ceil
from numbers import Real
from typing import Generic, Protocol

import numpy as np

from msnas_optuna.samplers.history import History
from msnas_optuna.spaces.base import A, FeasibleSet


class SpaceExhaustedError(RuntimeError):
    """Every feasible architecture has been proposed in the study."""


@dataclass(frozen=True)
class Proposal(Generic[A]):
    """An architecture and how it came about."""

    architecture: A
    origin: str  # "random", "substitute" (random, as no child was found), "reevaluated",
    #   "recombination", or operator_part: "crossover_encoder"
    parents: tuple[int, ...] = ()  # numbers of the trials that it descends from
    repeat: int = 0  # measurements of the architecture that were planned before this one


@dataclass(frozen=True)
class Settings:
    """Numbers of an evolution, see `ArchitectureSampler`, and what follows from them for a slot.

    In each generation but the first the random children come first, because they need not wait
    for their parents, then the reevaluations, then the children of the operators.

    Raises:
        ValueError: a setting is out of range.
    """

    population_size: int  # P
    n_children: int
    n_random: int  # R
    n_reevaluated: int
    gene_probability: float
    max_attempts: int  # M

    def __post_init__(self) -> None:
        require_at_least("population_size", self.population_size, 1)
        require_at_least("n_children", self.n_children, 0)
        require_at_least("n_random", self.n_random, 0)
        require_at_least("n_reevaluated", self.n_reevaluated, 0)
        require_at_least("n_children + n_random", self.n_children + self.n_random, 1)
        require_at_least("max_attempts", self.max_attempts, 1)
        p = self.gene_probability
        if not isinstance(p, Real) or isinstance(p, bool) or not 0 <= p <= 1:
            raise ValueError(f"gene_probability must be a number in 0..1, got {p!r}")

    def generation(self, slot: int) -> int:
        """0 for the first population, then one for each iteration of Algorithm 1."""
        return 1 + self._place(slot)[0] if slot >= self.population_size else 0

    def is_random(self, slot: int) -> bool:
        """True where the slot takes a random architecture."""
        return slot < self.population_size or self._place(slot)[1] < self.n_random

    def is_reevaluation(self, slot: int) -> bool:
        """True where the slot measures one of the best architectures again."""
        place = self._place(slot)[1] - self.n_random
        return slot >= self.population_size and 0 <= place < self.n_reevaluated

    def _place(self, slot: int) -> tuple[int, int]:
        """Iterations before the slot's, and its place in its own."""
        length = self.n_random + self.n_reevaluated + self.n_children
        return divmod(slot - self.population_size, length)


def require_at_least(name: str, value: int, least: int) -> None:
    """Raises ValueError, which begins with the name, for what is no whole number or too small."""
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


class Proposer(Protocol):
    """Fills the slots of a study; a pure function."""

    def __call__(
        self,
        history: History[A],
        slot: int,
        *,
        rng: np.random.Generator,
        feasible: FeasibleSet[A],
        settings: Settings,
    ) -> Proposal[A]:
        """A feasible architecture that the history, of the other trials, does not hold.

        `slot` is the place in the sequence of proposals that is to be filled, `rng` its own.

        Raises:
            SpaceExhaustedError: there is none.
        """


def sample_new(
    history: History[A],
    *,
    rng: np.random.Generator,
    feasible: FeasibleSet[A],
    origin: str = "random",
) -> Proposal[A]:
    """GetValidRandomSample: uniform over the feasible architectures that no trial has.

    Raises:
        SpaceExhaustedError: there is none.
        RuntimeError: there are some, and the set never draws them.
    """
    total = feasible.count()
    new = total - history.n_held
    if new <= 0:
        raise SpaceExhaustedError(
            f"all {total} feasible architectures have been proposed; widen the budget or ask for "
            "fewer trials"
        )
    for _ in range(ceil(40 * total / new)):  # a new one comes, but for odds of e^-40
        architecture = feasible.sample(rng)
        if not history.holds(architecture):
            return Proposal(architecture, origin)
    raise RuntimeError(
        f"{new} of {total} feasible architectures are new, but `sample` returns none of them; it "
        "must draw uniformly"
    )
