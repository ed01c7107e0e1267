"""How many evaluations each sampler needs, on a table of all architectures of a small window.

python benchmarks/search.py [--json] [--processes 2]      the comparison, on the held-out seeds
python benchmarks/search.py --tune                        how the settings were chosen, on others

A trial outside the window costs an evaluation as any other: it gets AP 0, and constraints that
say how far outside it is. A repeated proposal is a wasted evaluation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from msnas_optuna import ArchitectureSampler
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.methods.msnas.tabular import TABLE_FILE, TabularBenchmark, load_table, suggest
from msnas_optuna.samplers import PROPOSERS

LIMIT = 300  # trials of a run
TUNING_SEEDS = range(100, 200)
HELD_OUT_SEEDS = range(200, 260)
TOP = {"top 1 %": 0.99, "top 0.1 %": 0.999}
WARM_START = 50  # feasible trials that a warm-started study begins with, its own population


@dataclass(frozen=True)
class Settings:
    """What `ArchitectureSampler` can be told; the defaults are its own."""

    proposer: str = "algorithm1"
    population_size: int = 10
    n_children: int = 10
    n_random: int = 2
    gene_probability: float = 0.1
    max_attempts: int = 3


DEFAULT = Settings()
PAPER = Settings(population_size=50, n_children=50, n_random=10)
RECOMBINATION = Settings("recombination", 10, 10, 1, gene_probability=0.05, max_attempts=50)


@dataclass(frozen=True)
class Contestant:
    """A way to search.

    Attributes:
        name: as the comparison prints it.
        sampler: (table, seed) -> sampler.
        warm_start: how many feasible architectures, drawn uniformly, are evaluated first.
    """

    name: str
    sampler: Callable[[TabularBenchmark, int], BaseSampler]
    warm_start: int = 0


def evolution(settings: Settings, table: TabularBenchmark, seed: int) -> BaseSampler:
    """A proposer with these settings."""
    return ArchitectureSampler(table.feasible, seed=seed, **vars(settings))


def uniform(table: TabularBenchmark, seed: int) -> BaseSampler:
    """Feasible architectures, uniformly and without repeats: an endless first population."""
    return ArchitectureSampler(table.feasible, seed=seed, population_size=table.feasible.count())


def tpe(table: TabularBenchmark, seed: int) -> BaseSampler:
    """Optuna's default sampler."""
    return TPESampler(seed=seed)


def nsga2(table: TabularBenchmark, seed: int) -> BaseSampler:
    """Optuna's genetic algorithm, population 50."""
    return NSGAIISampler(seed=seed)


def uniform_anything(table: TabularBenchmark, seed: int) -> BaseSampler:
    """Every parameter on its own."""
    return RandomSampler(seed=seed)


CONTESTANTS = (
    Contestant("Algorithm 1", partial(evolution, DEFAULT)),
    Contestant("Algorithm 1, the paper's numbers", partial(evolution, PAPER)),
    Contestant("recombination", partial(evolution, RECOMBINATION)),
    Contestant("uniform feasible", uniform),
    Contestant("Optuna NSGA-II", nsga2),
    Contestant("Optuna NSGA-II, 50 feasible first", nsga2, WARM_START),
    Contestant("Optuna TPE", tpe),
    Contestant("Optuna TPE, 50 feasible first", tpe, WARM_START),
    Contestant("Optuna Random", uniform_anything),
)


# ---------------------------------------------------------------------------------- one run


@dataclass(frozen=True)
class Run:
    """One study.

    Attributes:
        values: AP of every trial; 0 outside the window.
        in_window: share of the sampler's own proposals that lie in the window.
        repeats: proposals that were made before.
        milliseconds: of asking for a proposal with all its parameters, median over trials.
    """

    values: tuple[float, ...]
    in_window: float
    repeats: int
    milliseconds: float

    def reached(self, value: float) -> float:
        """The number of trials until one is at least `value`; infinite where none is."""
        return next((i for i, v in enumerate(self.values, start=1) if v >= value), math.inf)

    def best(self, trials: int) -> float:
        """The largest AP of the first trials."""
        return max(self.values[:trials])


def run(
    contestant: Contestant,
    seed: int,
    *,
    table: TabularBenchmark,
    limit: int,
    stop_at: float = math.inf,
) -> Run:
    """Searches a table, until the limit or the value `stop_at`."""
    study = optuna.create_study(
        direction="maximize", sampler=contestant.sampler(table, seed), storage=None
    )
    rng = np.random.default_rng([seed, 1])
    for i in rng.permutation(table.feasible.count())[: contestant.warm_start].tolist():
        study.enqueue_trial(table.space.encode(table.feasible.at(i)))
    values: list[float] = []
    seconds: list[float] = []
    seen: set[Architecture] = set()
    while len(values) < limit and not (values and values[-1] >= stop_at):
        start = time.perf_counter()
        trial = study.ask()
        architecture = suggest(trial, table.space)
        seconds.append(time.perf_counter() - start)
        values.append(evaluate(trial, architecture, table))
        study.tell(trial, values[-1])
        seen.add(architecture)
    own = slice(contestant.warm_start if len(values) > contestant.warm_start else 0, None)
    return Run(
        values=tuple(values),
        in_window=fmean(value > 0 for value in values[own]),
        repeats=len(values) - len(seen),
        milliseconds=1e3 * median(seconds[own]),
    )


def evaluate(trial: optuna.Trial, architecture: Architecture, table: TabularBenchmark) -> float:
    """AP, or 0 and by how much the architecture breaks the rules and misses the window."""
    broken = broken_rules(architecture)
    trial.set_constraint("rules", broken)
    trial.set_constraint("window", 1.0 if broken else outside(architecture, table))
    return table.value(architecture) if architecture in table.measurements else 0.0


def broken_rules(architecture: Architecture) -> int:
    """How many rules are broken where (V1-V3), so that samplers can see progress."""
    s = architecture.feature_strides
    return (
        sum(not 4 <= a <= 64 for a in architecture.absolute_strides)
        + sum(a > b for a, b in itertools.pairwise(s))
        + (min(s) > 8 or max(s) < 8 or min(s) == max(s))
        + sum(a not in architecture.absolute_strides for a in s)
    )


def outside(architecture: Architecture, table: TabularBenchmark) -> float:
    """By which fraction the cost of a valid architecture misses the window."""
    cost, window = table.feasible.cost, table.feasible.window
    assert cost is not None
    assert window is not None
    low, high = window
    total = cost.total(architecture)
    return max(low - total, total - high, 0) / high


# ---------------------------------------------------------------------------------- many runs


@cache
def _table(path: Path) -> TabularBenchmark:
    return load_table(path)


def _task(path: Path, limit: int, tune: bool, task: tuple[Contestant, int]) -> Run:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = _table(path)
    stop_at = table.quantile(max(TOP.values())) if tune else math.inf
    return run(*task, table=table, limit=limit, stop_at=stop_at)


def run_all(
    contestants: Sequence[Contestant],
    seeds: Sequence[int],
    *,
    path: Path,
    limit: int,
    processes: int,
    tune: bool = False,
) -> dict[str, list[Run]]:
    """The runs of every contestant, one for each seed."""
    tasks = [(contestant, seed) for contestant in contestants for seed in seeds]
    work = partial(_task, path, limit, tune)
    if processes == 1:
        runs: Iterable[Run] = map(work, tasks)
    else:
        with ProcessPoolExecutor(processes) as pool:
            runs = list(pool.map(work, tasks, chunksize=4))
    found: dict[str, list[Run]] = {}
    for (contestant, _), result in zip(tasks, runs, strict=True):
        found.setdefault(contestant.name, []).append(result)
    return found


def summary(runs: Sequence[Run], table: TabularBenchmark) -> dict[str, Any]:
    """What the comparison says about one contestant."""
    reached = {name: [r.reached(table.quantile(q)) for r in runs] for name, q in TOP.items()}
    return {
        **{
            f"evaluations to {name}": dict(
                zip(("q1", "median", "q3"), _quartiles(counts), strict=True)
            )
            | {"reached": sum(map(math.isfinite, counts))}
            for name, counts in reached.items()
        },
        **{
            f"best AP after {n}": fmean(r.best(n) for r in runs)
            for n in (100, 300)
            if n <= len(runs[0].values)
        },
        "in window": fmean(r.in_window for r in runs),
        "repeats": fmean(r.repeats for r in runs),
        "ms per proposal": median(r.milliseconds for r in runs),
        "runs": len(runs),
    }


def _quartiles(counts: Sequence[float]) -> list[float | None]:
    """Each the smallest count that the share of all does not exceed; None for infinity."""
    ordered = sorted(counts)
    found = [ordered[math.ceil(q * len(ordered)) - 1] for q in (0.25, 0.5, 0.75)]
    return [count if math.isfinite(count) else None for count in found]


# ---------------------------------------------------------------------------------- tuning

GRID: dict[str, Sequence[Any]] = {
    "schedule": [
        (50, 50, 10),
        (30, 20, 4),
        (20, 10, 2),
        (16, 8, 3),
        (15, 10, 1),
        (10, 10, 2),
        (10, 10, 1),
        (10, 5, 1),
        (8, 8, 1),
        (5, 5, 1),
        (5, 5, 2),
    ],
    "gene_probability": [0.02, 0.05, 0.1, 0.2, 0.3],
    "max_attempts": [1, 2, 3, 5, 10, 20],
}
"""One setting after the other, from the paper's on; a schedule is (P, children, random)."""


def tune(proposer: str, seeds: Sequence[int], **where: Any) -> Settings:
    """The best settings of a proposer, chosen one after the other; prints all tried."""
    best, table = replace(PAPER, proposer=proposer), _table(where["path"])
    for name, choices in GRID.items():
        tried = {str(c): _with(best, name, c) for c in choices}
        contestants = [Contestant(label, partial(evolution, s)) for label, s in tried.items()]
        runs = run_all(contestants, seeds, tune=True, **where)
        scores = {label: slowness(r, table, where["limit"]) for label, r in runs.items()}
        for label, marks in scores.items():
            means = ", ".join(f"{m:.0f} to the {top}" for top, m in zip(TOP, marks, strict=True))
            print(f"{proposer}: {name} = {label}: {means}", flush=True)
        best = tried[min(scores, key=lambda label: math.prod(scores[label]))]
    print(f"{proposer}: best {best}", flush=True)
    return best


def _with(settings: Settings, name: str, choice: Any) -> Settings:
    if name != "schedule":
        return replace(settings, **{name: choice})
    size, children, random = choice
    return replace(settings, population_size=size, n_children=children, n_random=random)


def slowness(runs: Sequence[Run], table: TabularBenchmark, limit: int) -> list[float]:
    """Mean evaluations to each mark; runs that do not reach it count as the limit.

    Settings are compared by the product: the first mark alone rewards a lucky first population.
    """
    return [fmean(min(r.reached(table.quantile(q)), limit) for r in runs) for q in TOP.values()]


# ---------------------------------------------------------------------------------- printing


def markdown(results: dict[str, dict[str, Any]], limit: int) -> str:
    """One row for each contestant."""
    marks = [f"evaluations to {name}" for name in TOP]
    bests = [key for key in next(iter(results.values())) if key.startswith("best AP")]
    head = ["sampler", *marks, *bests, "in window", "repeats", "ms per proposal"]
    lines = [head, ["---"] * len(head)]
    for name, row in results.items():
        lines.append(
            [
                name,
                *(_interval(row[mark], row["runs"], limit) for mark in marks),
                *(f"{100 * row[best]:.1f}" for best in bests),
                f"{100 * row['in window']:.3g} %",
                f"{row['repeats']:.3g}",
                f"{row['ms per proposal']:.2g}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _interval(counts: dict[str, Any], runs: int, limit: int) -> str:
    q1, middle, q3 = (
        f"> {limit}" if counts[key] is None else f"{counts[key]:.0f}"
        for key in ("q1", "median", "q3")
    )
    missed = runs - counts["reached"]
    return f"{middle} ({q1} to {q3})" + (f", {missed} of {runs} never" if missed else "")


def main() -> None:
    """Prints the comparison, or the tuning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tune", nargs="*", choices=PROPOSERS, help="tune all proposers, or these, on other seeds"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seeds", type=int, help="how many of the seeds; all by default")
    parser.add_argument("--trials", type=int, default=LIMIT, help="limit of a run")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", type=Path, default=TABLE_FILE)
    options = parser.parse_args()
    seeds = HELD_OUT_SEEDS if options.tune is None else TUNING_SEEDS
    if options.seeds is not None and not 1 <= options.seeds <= len(seeds):
        parser.error(f"--seeds must lie in 1..{len(seeds)}, got {options.seeds}")
    seeds = seeds[: options.seeds]
    if options.trials <= WARM_START:
        parser.error(f"--trials must be more than {WARM_START}, got {options.trials}")
    where = {"path": options.table, "limit": options.trials, "processes": options.processes}
    if options.tune is not None:
        for proposer in options.tune or PROPOSERS:
            tune(proposer, seeds, **where)
        return
    runs = run_all(CONTESTANTS, seeds, **where)
    results = {name: summary(r, _table(options.table)) for name, r in runs.items()}
    print(json.dumps(results, indent=2) if options.json else markdown(results, options.trials))


if __name__ == "__main__":
    main()
