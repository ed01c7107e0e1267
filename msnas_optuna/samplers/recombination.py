"""Children of a whole population: each gene from any parent, or random, given the budget.

Gene pool recombination (Mühlenbein and Voigt, "Gene Pool Recombination in Genetic Algorithms",
1996) with the resets of the paper's mutation. It generalises the operators of Algorithm 1: all
parts vary at once, and more than two parents contribute.

Symbols: P parents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np

from msnas_optuna.samplers.history import History
from msnas_optuna.samplers.proposals import Proposal, Settings, sample_new
from msnas_optuna.spaces.base import A, Draw, FeasibleSet, Genes


def propose(
    history: History[A],
    slot: int,
    *,
    rng: np.random.Generator,
    feasible: FeasibleSet[A],
    settings: Settings,
) -> Proposal[A]:
    """The architecture of one slot; see `Proposer`.

    Generations and random children are those of Algorithm 1. The more the parents agree, the
    fewer children are new; one or two parents have hardly any.
    """
    population = []
    if not settings.is_random(slot):
        generation = settings.generation(slot)
        population = history.population(generation, size=settings.population_size)
    if population:
        parents = tuple(feasible.space.genes(parent.architecture) for parent in population)
        reset, hashable = settings.gene_probability, cast("Any", feasible)
        pool: Draw[A] = gene_pool(parents, hashable, reset=reset)
        for _ in range(settings.max_attempts):
            child = pool.sample(rng)
            if child is None:
                break
            if not history.holds(child):
                chosen = contributors(parents, feasible.space.genes(child))
                numbers = tuple(population[i].number for i in chosen)
                return Proposal(child, "recombination", numbers)
    return sample_new(history, rng=rng, feasible=feasible)


@lru_cache(maxsize=2)  # takes a build of weighted tables; parents change once a generation
def gene_pool(parents: Sequence[Genes], feasible: FeasibleSet[A], *, reset: float) -> Draw[A]:
    """Draws each feasible child by the product of the chances of its genes.

    Args:
        parents: genes of each of the P parents; a tuple.
        feasible: what children belong to.
        reset: chance of each gene to be random rather than some parent's, 0..1, before the
            budget is known.
    """
    choices = [d.choices for d in feasible.space.distributions.values()]
    return feasible.weighted(
        [
            _frequencies(genes, values, reset=reset)
            for genes, values in zip(zip(*parents, strict=True), choices, strict=True)
        ]
    )


def _frequencies(
    genes: Sequence[Any], choices: Sequence[Any], *, reset: float
) -> dict[Any, float]:
    counts = Counter(genes)
    return {c: reset / len(choices) + (1 - reset) * counts[c] / len(genes) for c in choices}


def contributors(parents: Sequence[Genes], child: Genes) -> list[int]:
    """Positions of a few parents that have, together, every gene the child has from any.

    The parent that explains most of the genes left comes next; earlier ones win ties.
    """
    shared = [
        {i for i, (x, y) in enumerate(zip(parent, child, strict=True)) if x == y}
        for parent in parents
    ]
    left, chosen = set().union(*shared), []
    while left:
        chosen.append(max(range(len(parents)), key=lambda p: len(shared[p] & left)))
        left -= shared[chosen[-1]]
    return chosen
