"""Time of the commands on a study with many trials, beside Optuna's own loading of it.

python benchmarks/large_study.py [--json] [--trials 1250,10000] [--folder DIR]

The study is on sqlite, in the r18 space with one-shot values that are made up, and has what a
search stores with each trial. Rows that begin with msnas are commands, as is Optuna's loading:
each is a process, with its imports. The others run in a process that has read the study:

look             of the parent of `msnas search --workers`, every two seconds, with its table
look, new trial  the same when a trial has come
publish          to the dashboard once a generation, here for the first time
publish again    when nothing has changed
"""

from __future__ import annotations

import argparse
import io
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.study import Study
from optuna.trial import FrozenTrial, create_trial
from rich.console import Console

from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.search import live_table
from msnas_optuna.report.dashboard import publish
from msnas_optuna.storage import (
    EXTERNAL,
    GENERATION,
    OBJECTIVE,
    ORIGIN,
    OWNER,
    PLAN,
    Plan,
    Worker,
    finished_slots,
    identify,
)
from msnas_optuna.storage.optuna_private import study_id
from msnas_optuna.study.setting import Setting

STUDY = """
[study]
name = "large"
run_dir = "."
trials = {trials}
[space]
n_blocks = 13
channels = 64
[budget]
tolerance = 0.01
[data]
image_size = [832, 1280]
shapes = {{ train = 1, val = 1, test = 1, size = 128 }}
[supernet]
steps = 1
batch_size = 1
[retrain]
steps = 1
batch_size = 1
"""
LOADING = (
    "import optuna, sys; "
    "optuna.load_study(study_name='large', storage=sys.argv[1]).get_trials(deepcopy=False)"
)
TABLES = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_values": "trial_value_id, trial_id, objective, value, value_type",
    "trial_params": "param_id, trial_id, param_name, param_value, distribution_json",
    "trial_user_attributes": "trial_user_attribute_id, trial_id, key, value_json",
    "trial_system_attributes": "trial_system_attribute_id, trial_id, key, value_json",
}
"""Of Optuna's database."""
MSNAS, FILE = ("-m", "msnas_optuna"), "{folder}/large.toml"
COMMANDS = {
    "Optuna's loading": ["-c", LOADING, "{storage}"],
    "msnas results": [*MSNAS, "results", FILE],
    "msnas report": [*MSNAS, "report", FILE, "-o", "{folder}/report.html"],
    "msnas doctor": [*MSNAS, "doctor", FILE],
    "msnas ask": [*MSNAS, "ask", FILE],
}


def made_up(setting: Setting, study: Study, trials: range) -> Iterator[FrozenTrial]:
    """Finished trials of these numbers with all that a search stores."""
    generation_of, made_in = setting.sampler().settings.generation, identify(study)
    for number in trials:
        rng, worker = np.random.default_rng(number), Worker.current(number)
        architecture, generation = setting.feasible.sample(rng), generation_of(number)
        parents = tuple(rng.integers(number, size=2).tolist()) if generation else ()
        origin = "crossover_encoder" if generation else "random"
        params = setting.space.encode(architecture)
        plan = Plan(params, generation, origin, parents, number, made_in, worker)
        ap = 0.3 + 0.05 * float(rng.normal()) + 0.05 * number / (number + 1000)
        keys = ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "train_seconds")
        measured = setting.method.costs(architecture, setting.cost) | dict.fromkeys(keys, ap)
        yield create_trial(
            value=ap,
            params=params,
            distributions=dict(setting.space.distributions),
            user_attrs={GENERATION: generation, ORIGIN: origin, "arch": str(architecture)}
            | measured,
            system_attrs={PLAN: plan.to_json(), OWNER: dict(vars(worker))},
        )


def large_study(folder: Path, trials: int) -> Setting:
    """Writes a study file and its search; not by `add_trial`, which takes minutes."""
    file = folder / "large.toml"
    file.write_text(STUDY.format(trials=trials + 1000))
    setting = Setting.load(file)
    study = setting.open_study(setting.config.identity() | {OBJECTIVE: EXTERNAL})
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    choices = {name: distribution_to_json(d) for name, d in setting.space.distributions.items()}
    for number, trial in enumerate(made_up(setting, study, range(trials))):
        n, time = number + 1, f"{trial.datetime_start:%Y-%m-%d %H:%M:%S.%f}"
        rows["trials"].append((n, number, study_id(study), "COMPLETE", time, time))
        rows["trial_values"].append((None, n, 0, trial.value, "FINITE"))
        for name, value in trial.params.items():
            index = trial.distributions[name].to_internal_repr(value)
            rows["trial_params"].append((None, n, name, index, choices[name]))
        for table, attrs in (("user", trial.user_attrs), ("system", trial.system_attrs)):
            rows[f"trial_{table}_attributes"] += [
                (None, n, key, json.dumps(value)) for key, value in attrs.items()
            ]
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        for table, columns in TABLES.items():
            marks = ", ".join("?" * len(columns.split(",")))
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])
    return setting


def look(setting: Setting, bars: Bars) -> None:
    """What the parent of several workers does every two seconds."""
    study = setting.stored_study()
    assert study is not None
    bars("search", finished_slots(study), setting.n_trials(), "2 workers")


def measure(folder: Path, trials: int) -> Iterator[dict[str, Any]]:
    """A row for each command, with the seconds and how often they hold Optuna's loading."""
    setting = large_study(folder, trials)
    loading = 0.0
    for name, words in COMMANDS.items():
        given = [word.format(folder=folder, storage=setting.storage_url) for word in words]
        start = time.perf_counter()
        subprocess.run([sys.executable, *given], check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - start
        loading = loading or took
        yield {"trials": trials, "command": name, "seconds": took, "ratio": took / loading}
    setting = Setting.load(folder / "large.toml")
    bars = Bars(Console(file=io.StringIO(), force_terminal=True))
    bars.beside(partial(live_table, setting), step="search")
    look(setting, bars)
    study = setting.stored_study()
    assert study is not None
    calls: dict[str, Callable[[], object]] = {
        "look": lambda: look(setting, bars),
        "look, new trial": lambda: look(setting, bars),
        "publish": lambda: publish(setting),
        "publish again": lambda: publish(setting),
    }
    rows = []
    for name, call in calls.items():
        if name == "look, new trial":
            number = len(study.get_trials(deepcopy=False))
            study.add_trials(made_up(setting, study, range(number, number + 1)))
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        rows.append({"trials": trials, "command": name, "seconds": took, "ratio": took / loading})
    bars.stop()  # until then, they print
    yield from rows


def main() -> None:
    """Prints one row for each number of trials and command, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--trials", default="1250,10000", help="numbers of trials")
    parser.add_argument("--folder", type=Path, help="where the sqlite files go")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for trials in map(int, arguments.trials.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for row in measure(Path(folder), trials):
                rows.append(row)
                if not arguments.json:
                    print("{trials:6} {command:18} {seconds:8.2f} s {ratio:7.2f}".format(**row))
    if arguments.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
