"""Children of a whole population: each gene from any parent, or random, given the budget.

Gene pool recombination (Mühlenbein and Voigt, "Gene Pool Recombination in Genetic Algorithms",
1996) with the resets of the paper's mutation: Algorithm 1's operators with all parts at once and
more than two parents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np

from msnas_optuna.samplers.history import History
from msnas_optuna.samplers.proposals import Proposal, Settings, sample_new
from msnas_optuna.spaces.base import A, Draw, FeasibleSet, Space


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
    if settings.is_random(slot):
        return sample_new(history, rng=rng, feasible=feasible)
    generation = settings.generation(slot)
    population = history.population(generation, size=settings.population_size)
    if population:
        parents = tuple(parent.architecture for parent in population)
        known = cast("Any", feasible)  # hashable, as all objects are by their identity
        pool: Draw[A] = gene_pool(parents, known, reset=settings.gene_probability)
        for _ in range(settings.max_attempts):
            child = pool.sample(rng)
            if child is not None and not history.holds(child):
                chosen = contributors(feasible.space, parents, child)
                numbers = tuple(population[i].number for i in chosen)
                return Proposal(child, "recombination", numbers)
    return sample_new(history, rng=rng, feasible=feasible, origin="substitute")


@lru_cache(maxsize=2)  # it takes a build of weighted tables, and parents change once a generation
def gene_pool(parents: tuple[A, ...], feasible: FeasibleSet[A], *, reset: float) -> Draw[A]:
    """Draws each feasible child by the product of the chances of its genes.

    `reset` is the chance of each gene to be random rather than some parent's, 0..1, before the
    budget is known.
    """
    return feasible.weighted(gene_weights(feasible.space, parents, reset=reset))


def gene_weights(space: Space[A], parents: Sequence[A], *, reset: float) -> list[dict[Any, float]]:
    """How often the parents have each value of each gene, mixed with equal chances for all."""
    weights = []
    columns = zip(*map(space.genes, parents), strict=True)
    for genes, distribution in zip(columns, space.distributions.values(), strict=True):
        counts, choices = Counter(genes), distribution.choices
        weights.append(
            {c: reset / len(choices) + (1 - reset) * counts[c] / len(genes) for c in choices}
        )
    return weights


def contributors(space: Space[A], parents: Sequence[A], child: A) -> list[int]:
    """Positions of a few parents that have, together, every gene the child has from any.

    The parent that explains most of the genes left comes next; earlier ones win ties.
    """
    genes = space.genes(child)
    shared = [
        {i for i, (x, y) in enumerate(zip(space.genes(parent), genes, strict=True)) if x == y}
        for parent in parents
    ]
    left, chosen = set().union(*shared), []
    while left:
        chosen.append(max(range(len(parents)), key=lambda p: len(shared[p] & left)))
        left -= shared[chosen[-1]]
    return chosen
