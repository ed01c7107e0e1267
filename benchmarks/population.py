"""How many parents a search should have: a large space, a few hundred or a thousand trials.

python benchmarks/population.py [--json] [--processes 2]

No table can hold the r18 space (209,524 architectures in the window), so the values are made up:
each choice of a gene has a random effect, and so has each pair of choices of a fifth of the pairs
of genes. They are standardized: 0 is the mean of the feasible architectures and 1 their standard
deviation. One half of the runs sees them with noise of half a standard deviation, as one-shot
evaluation is noisy. Printed is, after so many trials, the value without noise of the trial that
looks best, mean and standard error over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from statistics import fmean, pstdev, stdev
from typing import Any

import numpy as np
import optuna

from msnas_optuna import ArchitectureSampler
from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.lattice import Lattice

SPACE, COST = MSNASSpace(13), EncoderCost.from_preset("r18")
TARGET = PRESETS["r18"].target_gflops * 1e9
WINDOW = (math.ceil(0.99 * TARGET), math.floor(1.01 * TARGET))
NOISES = (0.0, 0.5)
MARKS = (100, 200, 300, 500, 1000)
PAIRS, PAIR_EFFECT = 0.2, 0.7  # share of the pairs of genes, size beside that of single genes
STANDARD = 5_000  # architectures that the standardization is taken from

CASES: dict[str, dict[str, Any]] = {
    f"Algorithm 1, {size} {children} {n_random}": {
        "population_size": size,
        "n_children": children,
        "n_random": n_random,
    }
    for size, children, n_random in ((5, 5, 1), (10, 10, 2), (20, 16, 4), (50, 50, 10))
} | {
    "recombination, 10 10 1": {
        "proposer": "recombination",
        "population_size": 10,
        "n_children": 10,
        "n_random": 1,
        "gene_probability": 0.05,
        "max_attempts": 50,
    }
}
"""Settings by name: P, children, random children; 50, 50 and 10 are the paper's."""

Value = Callable[[dict[str, Any]], float]
Task = tuple[str, float, int, int]


@cache
def _feasible() -> Lattice:
    return Lattice(SPACE, COST, window=WINDOW)


def landscape(seed: int) -> Value:
    """A made-up value of every architecture, from its parameters."""
    rng = np.random.default_rng([seed, 0])
    choices = {name: d.choices for name, d in SPACE.distributions.items()}
    alone = {
        name: dict(zip(c, rng.normal(size=len(c)), strict=True)) for name, c in choices.items()
    }
    together = {
        (a, b): {pair: rng.normal() for pair in itertools.product(choices[a], choices[b])}
        for a, b in itertools.combinations(choices, 2)
        if rng.random() < PAIRS
    }

    def value(params: dict[str, Any]) -> float:
        single = sum(effects[params[name]] for name, effects in alone.items())
        pairs = sum(effects[params[a], params[b]] for (a, b), effects in together.items())
        return float(single + PAIR_EFFECT * pairs)

    drawn = [value(SPACE.encode(a)) for a in _feasible().sample(rng, STANDARD)]
    middle, spread = fmean(drawn), pstdev(drawn)
    return lambda params: (value(params) - middle) / spread


_landscape = cache(landscape)
"""A process meets each landscape once for every case."""


def run(task: Task) -> list[float]:
    """The true value of what looks best, after each of the marks that the run reaches."""
    case, noise, seed, trials = task
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    value, rng = _landscape(seed), np.random.default_rng([seed, 1])
    sampler = ArchitectureSampler(_feasible(), seed=seed, **CASES[case])
    study = optuna.create_study(direction="maximize", sampler=sampler)
    seen: list[tuple[float, float]] = []
    for _ in range(trials):
        trial = study.ask()
        true = value({name: trial._suggest(name, d) for name, d in SPACE.distributions.items()})
        seen.append((true + noise * rng.normal(), true))
        study.tell(trial, seen[-1][0])
    return [max(seen[:mark])[1] for mark in MARKS if mark <= trials]


def compare(*, seeds: int, trials: int, processes: int) -> list[dict[str, Any]]:
    """One row for each amount of noise and each of the cases."""
    cases = list(itertools.product(CASES, NOISES))
    tasks = [(*case, seed, trials) for case in cases for seed in range(seeds)]
    with ProcessPoolExecutor(processes) as pool:
        found = list(pool.map(run, tasks))
    rows = []
    for i, (case, noise) in enumerate(cases):
        marks = list(zip(*found[i * seeds : (i + 1) * seeds], strict=True))
        rows.append(
            {
                "case": case,
                "noise": noise,
                "means": [fmean(m) for m in marks],
                "errors": [stdev(m) / math.sqrt(seeds) for m in marks],
            }
        )
    return sorted(rows, key=lambda row: row["noise"])


def main() -> None:
    """Prints one row for each amount of noise and each of the cases, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seeds", type=int, default=20, help="landscapes, at least 2")
    parser.add_argument("--trials", type=int, default=1000, help="of a run, at least 100")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    rows = compare(seeds=arguments.seeds, trials=arguments.trials, processes=arguments.processes)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    marks = [mark for mark in MARKS if mark <= arguments.trials]
    print(f"{'noise':5}  {'P, children, random':23}", *(f"{mark:>11}" for mark in marks))
    for row in rows:
        cells = (f"{m:5.2f} ±{e:5.2f}" for m, e in zip(row["means"], row["errors"], strict=True))
        print(f"{row['noise']:5}  {row['case']:23}", *cells)


if __name__ == "__main__":
    main()
