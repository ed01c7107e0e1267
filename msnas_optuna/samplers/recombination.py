"""Children of a whole population: each gene from any parent, or random, given the budget.

Gene pool recombination (Mühlenbein and Voigt, "Gene Pool Recombination in Genetic Algorithms",
1996) with the resets of the paper's mutation. It generalises the four operators of Algorithm 1,
lines 5-7: encoder and utilisation vary at once, and more than two parents contribute.

Symbols: N mixed blocks, P parents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.spaces.base import Draw, FeasibleSet, Space


@dataclass(frozen=True)
class GenePool:
    """What some parents hand on.

    Attributes:
        parents: their architectures.
        genes: every gene of every parent, a row each; N + 5 columns.
        draw: the feasible children, each by the product of the chances of its genes.
    """

    parents: tuple[Architecture, ...]
    genes: NDArray[np.float64]
    draw: Draw[Architecture]

    def child(self, rng: np.random.Generator) -> Architecture | None:
        """A feasible child; None where nothing feasible has only genes of the parents."""
        return self.draw.sample(rng)

    def contributors(self, child: Architecture) -> list[int]:
        """Positions of a few parents that have, together, every gene the child has from any.

        The parent that explains most of the genes left comes next; earlier ones win ties.
        """
        shared = self.genes == np.array(_genes(child))
        left, chosen = shared.any(axis=0), []
        while left.any():
            best = int((shared & left).sum(axis=1).argmax())
            chosen.append(best)
            left &= ~shared[best]
        return chosen


class Recombination:
    """The gene pools of parents; remembers the last, because parents change once a generation.

    Args:
        reset: chance of each gene to be random rather than some parent's, in 0..1, before the
            budget is known: children are drawn in proportion, among the feasible ones.
    """

    def __init__(self, reset: float) -> None:
        self._reset = reset
        self._kept: tuple[FeasibleSet[Architecture], GenePool] | None = None

    def __reduce__(self) -> tuple[type[Recombination], tuple[float]]:
        return Recombination, (self._reset,)

    def pool(
        self, parents: Iterable[Architecture], feasible: FeasibleSet[Architecture]
    ) -> GenePool:
        """The gene pool of feasible parents; takes a build of weighted tables when they change."""
        parents, kept = tuple(parents), self._kept  # one read: threads may ask too
        if kept is None or kept[0] is not feasible or kept[1].parents != parents:
            draw = feasible.weighted(gene_weights(feasible.space, parents, reset=self._reset))
            pool = GenePool(parents, np.array([_genes(p) for p in parents]), draw)
            kept = self._kept = (feasible, pool)
        return kept[1]


def gene_weights(
    space: Space[Architecture], parents: Sequence[Architecture], *, reset: float
) -> list[dict[Any, float]]:
    """How often the parents have each value of each gene, mixed with equal chances for all."""
    weights = []
    columns = zip(*map(space.genes, parents), strict=True)
    for genes, distribution in zip(columns, space.distributions.values(), strict=True):
        counts, choices = Counter(genes), distribution.choices
        weights.append(
            {c: reset / len(choices) + (1 - reset) * counts[c] / len(genes) for c in choices}
        )
    return weights


def _genes(architecture: Architecture) -> tuple[float, ...]:
    return (*architecture.strides, *architecture.feature_strides)
