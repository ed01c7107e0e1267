"""Evaluates every architecture of a small window, and keeps what it finds as a table.

python benchmarks/tabular/make.py [--folder msnas-tabular] [--processes 1] [--again 150]

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.4, §4.1:
one supernet, then a short fine-tuning and COCO AP for each architecture, as the search does it.

Interrupt it at any point and run it again: every result is one line of results.jsonl in the
folder, and what stands there is not done twice.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import multiprocessing
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.study.setting import Setting

HERE = Path(__file__).resolve().parent
TABLE = HERE.parents[1] / "msnas_optuna" / "methods" / "msnas" / "msnas_n7.json"
PACKAGES = ("msnas-optuna", "torch", "torchvision", "optuna", "pycocotools", "numpy")


@dataclass(frozen=True)
class Task:
    """One measurement: an architecture, and the seed of the batches that fine-tune it."""

    architecture: str
    seed: int


def tasks(setting: Setting, again: int) -> list[Task]:
    """Every feasible architecture with the study's seed, then `again` of them with the next.

    The order is random, so that an unfinished run holds a fair sample.
    """
    seed, feasible = setting.config.study.seed, setting.feasible
    order = np.random.default_rng(seed).permutation(feasible.count()).tolist()
    names = [str(feasible.at(i)) for i in order]
    return [Task(name, seed) for name in names] + [Task(name, seed + 1) for name in names[:again]]


# ---------------------------------------------------------------------------------- evaluation

_objective: Any = None  # of a worker process: building it loads data and weights


def _prepare(study_file: Path) -> None:
    global _objective
    from msnas_optuna.study.experiment import Experiment

    parts = Experiment.load(study_file)
    _objective = parts.one_shot_objective(parts.setting.feasible)


def evaluate(task: Task) -> dict[str, Any]:
    """One line of results.jsonl."""
    start = time.perf_counter()
    _objective.seed = task.seed
    measured = _objective.measure(Architecture.parse(task.architecture))
    return {
        "architecture": task.architecture,
        "seed": task.seed,
        "ap": measured["ap"],
        "ap50": measured["ap50"],
        "seconds": round(time.perf_counter() - start, 3),
    }


def evaluated(study_file: Path, missing: Sequence[Task], processes: int) -> Iterator[dict]:
    """Evaluates the tasks in processes of one thread each."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_prepare, initargs=(study_file,)
    ) as pool:
        try:
            for done in as_completed([pool.submit(evaluate, task) for task in missing]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------------------------- results.jsonl


def read_results(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of earlier runs; makes the file, and drops a line that a kill cut short.

    Raises:
        SystemExit: the file belongs to other settings.
    """
    if not path.exists():
        path.write_text(json.dumps({"settings": settings}) + "\n")
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    first, *lines = map(json.loads, whole.splitlines())
    if first["settings"] != settings:
        raise SystemExit(f"{path} holds results of other settings; use another --folder")
    return lines


def measure(setting: Setting, study_file: Path, *, again: int, processes: int) -> list[dict]:
    """All results, those of earlier runs and new ones."""
    path = setting.run_dir / "results.jsonl"
    settings = setting.config.identity()
    results = read_results(path, settings)
    wanted = tasks(setting, again)
    done = {Task(r["architecture"], r["seed"]) for r in results}
    missing = [task for task in wanted if task not in done]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} results are there", flush=True)
    if missing:
        train_supernet(study_file)
        with path.open("a") as file:
            for i, result in enumerate(evaluated(study_file, missing, processes), start=1):
                file.write(json.dumps(result) + "\n")
                file.flush()
                results.append(result)
                if i % 20 == 0 or i == len(missing):
                    print(f"{i} of {len(missing)}: AP {result['ap']:.3f}", flush=True)
    return results


def train_supernet(study_file: Path) -> None:
    """Trains the supernet, or continues, in the folder of the study file."""
    from msnas_optuna.study.experiment import Experiment

    def report(step: str, done: int, total: int, note: str = "") -> None:
        if done % 100 == 0 or done == total:
            print(f"{step}: {done} of {total} {note}", flush=True)

    Experiment.load(study_file, report=report).train_supernet()


# ---------------------------------------------------------------------------------- the table


def table(setting: Setting, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The content of the table file: provenance, space, window and rows in the lattice's order."""
    by_name: dict[str, dict[int, dict]] = {}
    for result in results:
        by_name.setdefault(result["architecture"], {})[result["seed"]] = result
    feasible, cost, config = setting.feasible, setting.cost, setting.config
    rows = []
    for architecture in map(feasible.at, range(feasible.count())):
        measured = [r for _, r in sorted(by_name[str(architecture)].items())]
        rows.append(
            [
                str(architecture),
                cost.total(architecture) / 1e9,
                [round(r["ap"], 5) for r in measured],
                [round(r["ap50"], 5) for r in measured],
            ]
        )
    return {
        "provenance": provenance(setting, results),
        "space": {
            "n_blocks": config.space.n_blocks,
            "block": config.space.block,
            "channels": config.space.channels,
            "stem_channels": config.space.stem_channels,
            "input_size": list(cost.input_size),
            "window": list(setting.window),
        },
        "columns": ["architecture", "gflops", "ap", "ap50"],
        "rows": rows,
    }


def provenance(setting: Setting, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How the numbers came about."""
    config = setting.config
    seeds = sorted({r["seed"] for r in results})
    return {
        "what": (
            "COCO AP and AP50 on the validation images after a short fine-tuning of the "
            "supernet's weights; one entry for each seed of the fine-tuning's batches"
        ),
        "command": "python benchmarks/tabular/make.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seeds": {str(s): sum(r["seed"] == s for r in results) for s in seeds},
        "supernet_steps": config.supernet.steps,
        "supernet_sha256": _digest(setting.run_dir / "supernet.pt"),
        "finetune_steps": config.finetune.steps,
        "evaluation_seconds": round(sum(r["seconds"] for r in results)),
        "processor": processor(),
        "versions": package_versions(),
        "settings": config.identity(),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}


def processor() -> str:
    """The name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_table(content: dict[str, Any], path: Path) -> None:
    """JSON with one row a line, so that two versions can be compared line by line."""
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in content["rows"])
    head = json.dumps({k: v for k, v in content.items() if k != "rows"}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head.removesuffix("}").rstrip()},\n "rows": [\n{rows}\n]}}\n')


def main() -> None:
    """Makes the table, or continues."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("msnas-tabular"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--again", type=int, default=150, help="architectures measured twice")
    parser.add_argument("--study", type=Path, default=HERE / "study.toml")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    study_file = options.folder / "study.toml"
    if not study_file.exists():
        shutil.copy(options.study, study_file)
    setting = Setting.load(study_file)
    results = measure(setting, study_file, again=options.again, processes=options.processes)
    write_table(table(setting, results), options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
