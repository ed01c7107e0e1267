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
generation, L genes of an architecture, n children of an operator. A part of the genes, as the
encoder or the feature strides, is a run that varies on its own. In arrays a gene is the position
of its value among its choices.

A call fills one slot: the trials of the study are the populations, and the study is the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.samplers.history import History
from msnas_optuna.samplers.proposals import Proposal, Settings, sample_new
from msnas_optuna.spaces.base import A, FeasibleSet

Numbers = NDArray[np.intp]

N_CHILDREN: Final = 64  # n, children of each operator in one attempt; a slot takes one


def propose(
    history: History[A],
    slot: int,
    *,
    rng: np.random.Generator,
    feasible: FeasibleSet[A],
    settings: Settings,
) -> Proposal[A]:
    """The architecture of one slot; see `Proposer`."""
    # Deviation: pop_0 is drawn inside C, because else the heaviest win every Topk; the random
    # children of an iteration come first, because they need not wait for their parents.
    if settings.is_random(slot):
        return sample_new(history, rng=rng, feasible=feasible)  # Alg. 1, l. 1 and 8
    i = settings.generation(slot)  # Alg. 1, l. 2
    best = history.population(i, size=settings.population_size)  # Alg. 1, l. 9
    space = feasible.space
    choices = [distribution.choices for distribution in space.distributions.values()]
    sizes = [len(values) for values in choices]
    genes = [space.genes(parent.architecture) for parent in best]
    pop = np.array([[c.index(g) for c, g in zip(choices, own, strict=True)] for own in genes])
    seen = {parent.tobytes() for parent in pop}
    for _ in range(settings.max_attempts if best else 0):  # Alg. 1, l. 3-4
        families = {}
        for name, part in space.parts.items():  # Alg. 1, l. 5-6
            families[f"crossover_{name}"] = crossover(pop, part, rng=rng)
            families[f"mutation_{name}"] = mutation(
                pop, part, rng=rng, sizes=sizes, reset=settings.gene_probability
            )
        children = np.concatenate([children for children, _ in families.values()])
        (selected,) = feasible.contains(children).nonzero()  # Alg. 1, l. 7
        for row in rng.permutation(selected).tolist():
            if (key := children[row].tobytes()) in seen:
                continue
            seen.add(key)
            values = (c[j] for c, j in zip(choices, children[row].tolist(), strict=True))
            child = space.architecture(tuple(values))
            # Deviation: what the study has is left out, because it would tell nothing new; one
            # child is taken, because a slot is one trial.
            if not history.holds(child):
                origin = list(families)[row // N_CHILDREN]
                parents = families[origin][1][row % N_CHILDREN].tolist()
                return Proposal(child, origin, tuple(best[p].number for p in parents))
    # Deviation: after M attempts a random child takes the slot, because a trial needs one.
    return sample_new(history, rng=rng, feasible=feasible, origin="substitute")


def crossover(
    pop: Numbers, part: slice, *, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:  # [P, L] -> [n, L], [n, 2]
    """Children and their parents' places; from a random gene on the part is the second's."""
    first = rng.integers(len(pop), size=N_CHILDREN)
    second = (first + rng.integers(1, max(len(pop), 2), size=N_CHILDREN)) % len(pop)
    cut = rng.integers(part.start, part.stop, size=(N_CHILDREN, 1))
    position = np.arange(pop.shape[1])
    of_second = (cut <= position) & (position < part.stop)
    return np.where(of_second, pop[second], pop[first]), np.stack([first, second], axis=1)


def mutation(
    pop: Numbers, part: slice, *, rng: np.random.Generator, sizes: Sequence[int], reset: float
) -> tuple[Numbers, Numbers]:  # [P, L] -> [n, L], [n, 1]
    """Children and their parents' places; each gene of the part is kept or, by chance, random.

    `sizes` are the numbers of choices of all genes, `reset` is the chance, 0..1.
    """
    parents = rng.integers(len(pop), size=(N_CHILDREN, 1))
    children = pop[parents[:, 0]]
    drawn = rng.integers(sizes[part], size=children[:, part].shape)
    kept = rng.random(drawn.shape) >= reset
    children[:, part] = np.where(kept, children[:, part], drawn)
    return children, parents
