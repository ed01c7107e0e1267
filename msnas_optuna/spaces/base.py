"""Protocols of a search space, a cost and a feasible set, with nothing of any one method.

A space is a finite automaton over genes, one gene a position; a cost is a weight on its
transitions:

    position 0        1        ...        L-1          genes g_0..g_{L-1}, each a choice of a list
    state    q_0 -g_0-> q_1 -g_1-> ...  -> q_L         q_{i+1} = next(i, q_i, g_i), or not allowed
    cost     base + step(0, q_0, g_0, q_1) + ...       whole numbers
    valid    every transition exists and q_L is accepted

Samplers, objectives and storage see parameter dictionaries, genes and architectures, never the
rules that tie them together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

A = TypeVar("A", bound=Hashable)
_Priced = TypeVar("_Priced", bound=Hashable, contravariant=True)
_Drawn = TypeVar("_Drawn", bound=Hashable, covariant=True)

Genes = tuple[Any, ...]  # one value for each parameter, in the order of `Space.distributions`
GeneValues = Sequence[Mapping[Any, float]]  # for each gene: choice -> weight or score
State = Any  # what the genes so far say about those to come; hashable


class InvalidArchitectureError(ValueError):
    """An architecture breaks a rule of its space or lies outside its budget."""


class EmptyWindowError(InvalidArchitectureError):
    """No valid architecture has a cost inside the window."""


class Automaton(Protocol):
    """Which sequences of genes are valid."""

    @property
    def choices(self) -> Sequence[Sequence[Any]]:
        """The values of each of the L genes."""

    @property
    def start(self) -> State:
        """The state before the first gene."""

    @property
    def listed(self) -> tuple[int, int]:
        """How many first and last genes are listed outright; (0, 0) suits most spaces.

        It pays off where their costs are of a finer grain than those between.
        """

    def next(self, position: int, state: State, gene: Any) -> State | None:
        """The state after a gene, or None where it is not allowed; positions count from 0."""

    def accepts(self, state: State) -> bool:
        """True where a sequence of all L genes may end in this state."""


class Cost(Protocol[_Priced]):
    """A whole number that a budget limits, as multiply-adds, microseconds or blocks."""

    def total(self, architecture: _Priced) -> int:
        """The cost of a valid architecture."""

    def text(self, amount: int) -> str:
        """An amount with its unit, for messages: "0.0982 GFLOPs"."""


class AdditiveCost(Cost[_Priced], Protocol[_Priced]):
    """A cost that is a sum over the transitions of an automaton; `total` is that sum."""

    @property
    def base(self) -> int:
        """The amount that every architecture pays."""

    def step(self, position: int, before: State, gene: Any, after: State) -> int:
        """The amount that one gene adds, given the states before and after it."""


class Space(Protocol[A]):
    """A set of architectures, encoded as a fixed set of Optuna parameters; a base class."""

    @property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Every parameter of the space by name; the same set for every trial."""

    @property
    def parts(self) -> Mapping[str, slice]:
        """Runs of genes that operators vary together, by name."""

    def genes(self, architecture: A) -> Genes:
        """The genes of an architecture, which need not be valid."""

    def architecture(self, genes: Genes) -> A:
        """The architecture of a full set of genes; it need not be valid."""

    def automaton(self) -> Automaton:
        """Which genes are valid together."""

    def violation(self, architecture: A) -> str | None:
        """The first broken rule, in words, or None for a valid architecture."""

    def encode(self, architecture: A) -> dict[str, Any]:
        """The parameters of an architecture, one for each name in `distributions`.

        Raises:
            InvalidArchitectureError: it has more or fewer genes than the space.
        """
        genes, names = self.genes(architecture), self.distributions
        if len(genes) != len(names):
            raise InvalidArchitectureError(str(self.violation(architecture)))
        return dict(zip(names, genes, strict=True))

    def decode(self, params: Mapping[str, Any]) -> A:
        """The architecture of a full set of parameters; it need not be valid.

        Raises:
            InvalidArchitectureError: a parameter is missing or not among its choices.
        """
        for name, distribution in self.distributions.items():
            if name not in params or params[name] not in distribution.choices:
                came = repr(params[name]) if name in params else "nothing"
                raise InvalidArchitectureError(
                    f"{name} must be one of {list(distribution.choices)}, got {came}"
                )
        return self.architecture(tuple(params[name] for name in self.distributions))


class Draw(Protocol[_Drawn]):
    """Something to draw architectures from."""

    @property
    def total(self) -> float:
        """The weight of all architectures, where 1 is the largest weight of a gene."""

    def sample(self, rng: np.random.Generator) -> _Drawn | None:
        """One architecture, with a chance proportional to its weight; None if all weigh 0."""


class FeasibleSet(Protocol[A]):
    """The architectures of a space that a study may propose: valid and inside the budget."""

    space: Space[A]

    def count(self) -> int:
        """The exact number of feasible architectures."""

    def sample(self, rng: np.random.Generator) -> A:
        """One architecture, drawn uniformly over the set."""

    def violation(self, architecture: A) -> str | None:
        """The first broken rule (of the space or of the budget), in words, or None."""

    def contains(self, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of many architectures are feasible, [n]; quick, without a word of why.

        `chosen`, [n, L], holds for each architecture and gene the position of its value among the
        choices of the gene.
        """

    def complete(self, rng: np.random.Generator, genes: Sequence[Any]) -> A | None:
        """Draws the free genes (None) uniformly from what the fixed ones leave feasible, or None.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
        """

    def weighted(self, weights: GeneValues) -> Draw[A]:
        """Draws each feasible architecture in proportion to the product of its genes' weights.

        Weights are finite and at least 0; only ratios count.

        Raises:
            InvalidArchitectureError: the number of genes is wrong.
            ValueError: a gene has other choices than the space, or a weight is out of range.
        """
