"""Algorithm 1 of the paper: vary the best architectures, keep the children inside the budget.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.

     1  pop_0 = GetValidRandomSample(P)
     2  for i = 1..T:
     3    pop_i = {} ; j = 0
     4    while j < M and |pop_i| <= P:
     5      children = CrossoverEncoder(pop_{i-1}) | MutationEncoder(pop_{i-1})
     6               | CrossoverFeatureStride(pop_{i-1}) | MutationFeatureStride(pop_{i-1})
     7      pop_i |= Select(children, C) ; j += 1
     8    pop_i |= Select(GetValidRandomSample(R), C)
     9    pop_i = Topk(pop_i | pop_{i-1}, P)
    10  return Topk(pop_T, k)

Symbols: P population size, R random children of an iteration, M attempts, C the budget, i
generation. Genes are one value for each parameter; a part of them, as the encoder or the feature
strides, is a run that varies on its own.

A call fills one slot: the trials of the study are the populations, and the study is the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msnas_optuna.samplers.history import Candidate, History
from msnas_optuna.samplers.proposals import Proposal, Settings, sample_new
from msnas_optuna.spaces.base import A, FeasibleSet, Genes, Space


def propose(
    history: History[A],
    slot: int,
    *,
    rng: np.random.Generator,
    feasible: FeasibleSet[A],
    settings: Settings,
) -> Proposal[A]:
    """The architecture of one slot; see `Proposer`."""
    # Deviation: pop_0 is drawn inside C, because else the heaviest win every Topk.
    if settings.is_random(slot):
        return sample_new(history, rng=rng, feasible=feasible)  # Alg. 1, l. 1 and 8
    i = settings.generation(slot)  # Alg. 1, l. 2
    population = history.population(i, size=settings.population_size)  # Alg. 1, l. 9
    # Deviation: M bounds the attempts at one child, because a slot takes one.
    for _ in range(settings.max_attempts if population else 0):  # Alg. 1, l. 3-4
        child = vary(population, feasible.space, rng=rng, reset=settings.gene_probability)
        # Deviation: no child is one that the study has, because that would tell nothing new.
        if feasible.violation(child.architecture) is None and not history.holds(
            child.architecture
        ):
            return child  # Alg. 1, l. 7
    # Deviation: after M attempts a random child takes the slot, because a trial needs one.
    return sample_new(history, rng=rng, feasible=feasible)


def vary(
    population: Sequence[Candidate[A]], space: Space[A], *, rng: np.random.Generator, reset: float
) -> Proposal[A]:
    """One child of one operator, feasible or not.

    Args:
        population: the parents, at least one.
        space: what they belong to.
        rng: source of chance.
        reset: chance of a gene that mutates to be random, 0..1.
    """
    # Deviation: an operator is drawn, because a slot takes one child; of the many children of
    # all operators, Select keeps the same shares.
    part, crosses = divmod(int(rng.integers(2 * len(space.parts))), 2)
    name, run = list(space.parts.items())[part]
    first = int(rng.integers(len(population)))
    a = space.genes(population[first].architecture)
    if crosses and len(population) > 1:
        second = (first + int(rng.integers(1, len(population)))) % len(population)
        b = space.genes(population[second].architecture)
        child = crossover(a, b, run, rng=rng)  # Alg. 1, l. 5 and 6
        origin, parents = f"crossover_{name}", [first, second]
    else:
        choices = [d.choices for d in list(space.distributions.values())[run]]
        child = mutation(a, run, choices=choices, rng=rng, reset=reset)  # Alg. 1, l. 5 and 6
        origin, parents = f"mutation_{name}", [first]
    numbers = tuple(population[i].number for i in parents)
    return Proposal(space.architecture(child), origin, numbers)


def crossover(a: Genes, b: Genes, part: slice, *, rng: np.random.Generator) -> Genes:
    """The genes of a, but those of b from a random place in the part to its end."""
    cut = int(rng.integers(part.start, part.stop))
    return a[:cut] + b[cut : part.stop] + a[part.stop :]


def mutation(
    a: Genes,
    part: slice,
    *,
    choices: Sequence[Sequence[object]],
    rng: np.random.Generator,
    reset: float,
) -> Genes:
    """The genes of a; each of the part is kept or, with a chance, any of its choices."""
    chance, drawn = rng.random((2, len(choices))).tolist()
    mutated = tuple(
        choices[i][int(drawn[i] * len(choices[i]))] if chance[i] < reset else gene
        for i, gene in enumerate(a[part])
    )
    return a[: part.start] + mutated + a[part.stop :]
