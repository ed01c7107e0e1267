"""Time of a proposal: our two proposers and Optuna's NSGA-II, in memory and on one sqlite file.

python benchmarks/proposals.py [--json] [--trials 1000] [--repeats 100] [--folder DIR]

All have the same 18 parameters, those of the R18 space, and studies that hold 1,000
trials already. They take turns, so that other work on the machine hits all; medians.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.storages import BaseStorage

from msnas_optuna import ArchitectureSampler
from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import open_storage

SPACE, COST = MSNASSpace(13), EncoderCost.from_preset("r18")
TARGET = PRESETS["r18"].target_gflops * 1e9
WINDOW = (math.ceil(0.99 * TARGET), math.floor(1.01 * TARGET))
FIRST, *OTHERS = SPACE.distributions.items()

SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "Algorithm 1": lambda: ArchitectureSampler(Lattice(SPACE, COST, window=WINDOW), seed=0),
    "recombination": lambda: ArchitectureSampler(
        Lattice(SPACE, COST, window=WINDOW),
        proposer="recombination",
        gene_probability=0.05,
        max_attempts=50,
        seed=0,
    ),
    "NSGA-II": lambda: NSGAIISampler(population_size=50, seed=0),
}


@dataclass(frozen=True)
class Measured:
    """One sampler on one storage: median milliseconds.

    Attributes:
        sampler: its name.
        storage: "memory" or "sqlite".
        trials: how many the study held before.
        proposal_ms: `ask` and the first suggest, by when each sampler has made its proposal.
        trial_ms: `ask`, all suggests and `tell`.
    """

    sampler: str
    storage: str
    trials: int
    proposal_ms: float
    trial_ms: float


def run_trial(study: optuna.Study) -> tuple[float, float]:
    """Evaluates a cheap objective; seconds until the proposal and in all."""
    start = time.perf_counter()
    trial = study.ask()
    values = [trial._suggest(*FIRST)]
    proposed = time.perf_counter()
    values += [trial._suggest(*other) for other in OTHERS]
    paused = time.perf_counter()
    rng = np.random.default_rng([int(2 * v) for v in values])
    value = float(sum(math.sin(i * v) for i, v in enumerate(values, start=1)) + rng.normal())
    resumed = time.perf_counter()
    study.tell(trial, value)
    ended = time.perf_counter()
    return proposed - start, ended - resumed + paused - start


def filled(sampler: BaseSampler, trials: int) -> optuna.Study:
    """A study in memory."""
    study = optuna.create_study(direction="maximize", sampler=sampler, study_name="study")
    for _ in range(trials):
        run_trial(study)
    return study


def copied(study: optuna.Study, storage: BaseStorage, sampler: BaseSampler) -> optuna.Study:
    """The same study in another storage; NSGA-II serves one study only."""
    optuna.copy_study(from_study_name="study", from_storage=study._storage, to_storage=storage)
    return optuna.load_study(study_name="study", storage=storage, sampler=sampler)


def measure(
    studies: dict[str, optuna.Study], storage: str, *, trials: int, repeats: int
) -> list[Measured]:
    """Lets the samplers take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in studies}
    for study in studies.values():
        run_trial(study)  # the first call reads the whole study
    for _ in range(repeats):
        for name, study in studies.items():
            times[name].append(run_trial(study))
    return [
        Measured(
            name,
            storage,
            trials,
            *(1e3 * statistics.median(t) for t in zip(*seconds, strict=True)),
        )
        for name, seconds in times.items()
    ]


def compare(folder: Path, *, trials: int, repeats: int) -> list[Measured]:
    """All samplers on both storages."""
    memory = {name: filled(sampler(), trials) for name, sampler in SAMPLERS.items()}
    files = {
        name: copied(study, open_storage(f"sqlite:///{folder / name}.db"), SAMPLERS[name]())
        for name, study in memory.items()
    }
    return [
        *measure(memory, "memory", trials=trials, repeats=repeats),
        *measure(files, "sqlite", trials=trials, repeats=repeats),
    ]


def main() -> None:
    """Prints one row for each sampler and storage, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--trials", type=int, default=1000, help="that the studies hold already")
    parser.add_argument("--repeats", type=int, default=100, help="trials to take the median of")
    parser.add_argument("--folder", type=Path, help="where the sqlite files go")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows: list[dict[str, Any]] = [
            asdict(row)
            for row in compare(Path(folder), trials=arguments.trials, repeats=arguments.repeats)
        ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'sampler':14} {'storage':8} {'trials':>6} {'proposal ms':>12} {'trial ms':>9}")
    for row in rows:
        print(
            f"{row['sampler']:14} {row['storage']:8} {row['trials']:6} "
            f"{row['proposal_ms']:12.2f} {row['trial_ms']:9.2f}"
        )


if __name__ == "__main__":
    main()
