"""What every search space offers: its genes as Optuna distributions, and what makes them valid.

A space hides what a gene is. Samplers, objectives and storage see parameter dictionaries and
architectures, never the rules that tie them together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from optuna import Trial
from optuna.distributions import BaseDistribution

A = TypeVar("A", bound=Hashable)


class InvalidArchitectureError(ValueError):
    """An architecture breaks a rule of its space or lies outside its budget."""


class Space(Protocol[A]):
    """A set of architectures, encoded as a fixed set of Optuna parameters."""

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter of the space by name; the same set for every trial."""

    def encode(self, architecture: A) -> dict[str, Any]:
        """The parameters of an architecture, one for each name in `distributions`."""

    def decode(self, params: Mapping[str, Any]) -> A:
        """The architecture of a full set of parameters; it need not be valid.

        Raises:
            InvalidArchitectureError: a parameter is missing or not among its choices.
        """

    def violation(self, architecture: A) -> str | None:
        """The first broken rule, in words, or None for a valid architecture."""


class FeasibleSet(Protocol[A]):
    """The architectures of a space that a study may propose: valid and inside the budget."""

    @property
    def space(self) -> Space[A]:
        """The space that the set is a part of."""

    def count(self) -> int:
        """The exact number of feasible architectures."""

    def sample(self, rng: np.random.Generator) -> A:
        """One architecture, drawn uniformly over the set."""

    def violation(self, architecture: A) -> str | None:
        """The first broken rule (of the space or of the budget), in words, or None."""


def suggest(trial: Trial, feasible: FeasibleSet[A]) -> A:
    """The trial's architecture; every parameter is suggested at once.

    Raises:
        InvalidArchitectureError: it breaks a rule of the space or lies outside the budget, or
            was queued with a value that no parameter of the space has.
    """
    params = {}
    for name, distribution in feasible.space.distributions.items():
        try:
            params[name] = trial._suggest(name, distribution)
        except ValueError as error:
            if name not in trial._fixed_params:
                raise
            raise InvalidArchitectureError(
                f"{name} is queued with a wrong value: {error}"
            ) from error
    architecture = feasible.space.decode(params)
    if (violation := feasible.violation(architecture)) is not None:
        raise InvalidArchitectureError(f"{architecture}: {violation}")
    return architecture
