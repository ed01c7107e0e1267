"""Children of a whole population: each gene from any parent, or random, given the budget.

Gene pool recombination (Mühlenbein and Voigt, "Gene Pool Recombination in Genetic Algorithms",
1996) with the resets of the paper's mutation. It generalises the four operators of Algorithm 1,
lines 5-7: encoder and utilisation vary at once, and more than two parents contribute.

Symbols: N mixed blocks, P parents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.samplers.operators import ConditionalSet, Drawable
from msnas_optuna.spaces.msnas import FEATURE_STRIDES, STRIDES, Architecture
from msnas_optuna.spaces.tables import Weights

_G = TypeVar("_G", float, int)


class Recombination:
    """Draws feasible architectures from the gene pool of some parents.

    Args:
        reset: chance of each gene to be random rather than some parent's, in 0..1.
    """

    def __init__(self, reset: float) -> None:
        self._reset = reset
        self._kept: tuple[object, Drawable] | None = None  # parents change once a generation

    def __reduce__(self) -> tuple[type[Recombination], tuple[float]]:
        return Recombination, (self._reset,)

    def __call__(
        self,
        parents: Sequence[Architecture],
        *,
        feasible: ConditionalSet,
        rng: np.random.Generator,
    ) -> Architecture | None:
        """A feasible child; None where nothing feasible has only genes of the parents."""
        key, kept = (feasible, tuple(parents)), self._kept  # one read: threads may draw too
        if kept is None or kept[0] != key:
            kept = self._kept = (key, feasible.weighted(gene_pool(parents, reset=self._reset)))
        return kept[1].sample(rng)


def gene_pool(parents: Sequence[Architecture], *, reset: float) -> Weights:
    """How often the parents have each value of each gene, mixed with equal chances for all."""
    return Weights(
        [_frequencies(g, STRIDES, reset) for g in zip(*(p.strides for p in parents), strict=True)],
        [
            _frequencies(g, FEATURE_STRIDES, reset)
            for g in zip(*(p.feature_strides for p in parents), strict=True)
        ],
    )


def _frequencies(genes: Sequence[_G], choices: Sequence[_G], reset: float) -> dict[_G, float]:
    counts = Counter(genes)
    return {c: reset / len(choices) + (1 - reset) * counts[c] / len(genes) for c in choices}


def gene_matrix(parents: Sequence[Architecture]) -> NDArray[np.float64]:
    """Every gene of every parent, a row each; N + 5 columns."""
    return np.array([_genes(p) for p in parents])


def contributors(child: Architecture, genes: NDArray[np.float64]) -> list[int]:
    """Positions of a few parents that have, together, every gene that the child has from any.

    The parent that explains most of the genes left comes next; earlier ones win ties.
    """
    shared = genes == np.array(_genes(child))
    left, chosen = shared.any(axis=0), []
    while left.any():
        best = int((shared & left).sum(axis=1).argmax())
        chosen.append(best)
        left &= ~shared[best]
    return chosen


def _genes(architecture: Architecture) -> tuple[float, ...]:
    return (*architecture.strides, *architecture.feature_strides)
