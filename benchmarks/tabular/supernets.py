"""Judges ways to train a supernet, and scores under it, by the table's trainings from scratch.

python benchmarks/tabular/supernets.py [--folder msnas-supernets] [--seeds 3] [--processes 2]
    [--only NAME ...] [--fine-tuning 20,50] [--so-far] [--output FILE]

Each way is a change of benchmarks/tabular/study.toml; a supernet is trained with it for each seed,
and scores the architectures of `load_table().truth`. Kendall's tau with the mean over their
trainings says whether a search under such a supernet prefers what is better in the end
(Guo et al., ECCV 2020; Tables 2 and 4 of the MSNAS paper).

Interrupt it at any point and run it again: it continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import make
import numpy as np

from msnas_optuna.methods.msnas.tabular import load_table
from msnas_optuna.study.ablation import BASE, Ablation, Arm
from msnas_optuna.study.rank import RECALIBRATED, Score
from msnas_optuna.study.rank_statistics import (
    agreement,
    ceiling,
    harmonic_seeds,
    variance_components,
)
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

STUDY = make.HERE / "study.toml"
VALIDATION_IMAGES = 600  # less noise than the table's own 150

WAYS: dict[str, dict[str, Any]] = {
    BASE: {},
    "window-3": {"paths": "window"},
    "window-10": {"paths": "window", "tolerance": 0.1},
    "window-30": {"paths": "window", "tolerance": 0.3},
    "balanced": {"balanced": True},
    "window-3-balanced": {"paths": "window", "balanced": True},
    "average": {"ema": 0.998},
    "twice-as-long": {"steps": 4400},
    "half-as-long": {"steps": 1100},
}
"""What differs in [supernet] from the table's study, whose paths are all valid ones."""


def study_file(folder: Path, way: str, seed: int) -> Path:
    """Writes the study file of a way and a seed."""
    base = Setting.load(STUDY)
    data = base.config.data
    assert data.shapes is not None
    shapes = dataclasses.replace(data.shapes, val=VALIDATION_IMAGES)
    base.config = dataclasses.replace(base.config, data=dataclasses.replace(data, shapes=shapes))
    arms = {name: Arm(name, {}, {"supernet": WAYS[name]}) for name in {BASE, way}}
    return Ablation("supernets", "", arms).write_studies(base, folder, seed=seed)[way]


def measure(path: Path, steps: Sequence[int]) -> None:
    """Trains the supernet of a study file and scores the architectures that have a truth."""
    from msnas_optuna.study.experiment import Experiment

    experiment = Experiment.load(path)
    experiment.train_supernet()
    experiment.score(list(load_table().truth), [Score(0), RECALIBRATED, *map(Score, steps)])
    print(f"scored: {path.parent.name}", flush=True)


def scores(path: Path) -> dict[str, dict[Any, float]]:
    """What is measured so far: score -> architecture -> AP."""
    setting = Setting.load(path)
    stages = filter(None, setting.stages_in(setting.storage))
    return {
        str(score): {r.architecture: r.ap for r in StudyView.of_stage(setting, stage).results}
        for stage in stages
        if (score := Score.of_stage(stage)) is not None
    }


def compared(folder: Path, ways: Sequence[str], seeds: int) -> dict[str, Any]:
    """Tau and regret of each way and score, a number for each supernet that is measured."""
    truth = load_table().truth
    noise = variance_components([*truth.values()])
    limit = (
        None if noise is None else ceiling(noise.reliability(harmonic_seeds([*truth.values()])))
    )
    rows: dict[str, dict[str, Any]] = {}
    for way in ways:
        for seed in range(seeds):
            for score, values in scores(study_file(folder, way, seed)).items():
                both = [a for a in truth if a in values]
                if len(both) < len(truth):
                    continue
                found = agreement([values[a] for a in both], [np.mean(truth[a]) for a in both])
                row = rows.setdefault(way, {}).setdefault(score, {})
                numbers = {
                    "tau": found.tau and found.tau.value,
                    "tau_better_half": found.tau_upper_score and found.tau_upper_score.value,
                    "regret": found.regret[1].value,
                    "regret_5": found.regret[5].value,
                    "mean_ap": float(np.mean([values[a] for a in both])),
                }
                for name, value in numbers.items():
                    row.setdefault(name, {})[str(seed)] = value
    return {"architectures": len(truth), "ceiling": limit and limit._asdict(), "ways": rows}


def spread(values: dict[str, float], scale: float = 1) -> str:
    """Mean and standard error over supernets."""
    numbers = scale * np.array([*values.values()], float)
    error = f" ± {numbers.std(ddof=1) / np.sqrt(len(numbers)):.2f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.2f}{error}"


def main() -> None:
    """Measures what is missing, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("msnas-supernets"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--fine-tuning", default="20,50")
    parser.add_argument("--so-far", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON of all numbers")
    options = parser.parse_args()
    if not load_table().truth:
        raise SystemExit("the table has no truth; benchmarks/tabular/make_truth.py writes it")
    steps = [int(step) for step in options.fine_tuning.split(",")]
    jobs = [(way, seed) for seed in range(options.seeds) for way in options.only]
    if not options.so_far:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(options.processes, mp_context=context) as workers:
            files = [study_file(options.folder, *job) for job in jobs]
            for done in [workers.submit(measure, file, steps) for file in files]:
                done.result()
    found = compared(options.folder, options.only, options.seeds)
    print(f"{found['architectures']} architectures; ceiling {found['ceiling']}")
    for way, by_score in found["ways"].items():
        for score, row in by_score.items():
            print(
                f"{way:22} {score:14} tau {spread(row['tau']):14} "
                f"better half {spread(row['tau_better_half']):14} "
                f"mAP lost {spread(row['regret'], 100):14} mean mAP {spread(row['mean_ap'], 100)}"
            )
    if options.output:
        record = {
            "command": "python benchmarks/tabular/supernets.py",
            "processor": make.processor(),
            "versions": make.package_versions(),
            "numbers": found,
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
